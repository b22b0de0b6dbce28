//! PAX extended headers: `LENGTH KEY=VALUE\n` records. Values may hold any bytes, newlines included. Pure.

use crate::failure::{Failure, Outcome};

/// The records that matter to us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: bool,
}

impl PaxRecords {
    pub(super) fn parse(mut data: &[u8]) -> Outcome<Self> {
        let mut records = PaxRecords::default();
        while !data.is_empty() {
            let (key, value, rest) = split_record(data).ok_or_else(|| Failure::archive("a PAX header is malformed"))?;
            match key {
                b"path" => records.path = Some(value.to_vec()),
                b"linkpath" => records.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                    records.size = Some(size.ok_or_else(|| Failure::archive("a PAX header's size is no number"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => records.sparse = true,
                _ => {}
            }
            data = rest;
        }
        Ok(records)
    }
}

/// Key, value, and what follows the first record.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters_and_survives_the_rest() {
        let records = PaxRecords::parse(b"12 path=a/b\n18 SCHILY.x=\x00\n\n=1\n14 size=12345\n").expect("valid");
        assert_eq!(records, PaxRecords { path: Some(b"a/b".to_vec()), size: Some(12345), ..PaxRecords::default() });
        assert!(PaxRecords::parse(b"22 GNU.sparse.major=1\n").expect("valid").sparse);
        for bad in [b"".as_slice(), b"5", b"99 path=a\n", b"3 a=b\n", b"8 path=ab", b"9 size=x\n", b"0 path=a\n"] {
            assert_eq!(PaxRecords::parse(bad).is_err(), !bad.is_empty(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
