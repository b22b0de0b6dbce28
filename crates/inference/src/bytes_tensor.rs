//! The memory layout of BYTES tensors: each element is a 4-byte little-endian length and that many bytes.

use bytes::Bytes;

use crate::{Error, Result};

/// Iterates over the elements of a BYTES tensor's data.
#[derive(Clone, Debug)]
pub struct BytesElements<'a> {
    rest: &'a [u8],
}

impl<'a> BytesElements<'a> {
    /// Iterates over data that [`BytesElements::check`] has accepted; on other data it ends early.
    pub(crate) fn new(data: &'a [u8]) -> Self {
        BytesElements { rest: data }
    }

    /// Checks that `data` holds exactly `count` elements.
    pub(crate) fn check(data: &[u8], count: usize) -> Result<()> {
        let mut elements = BytesElements::new(data);
        let found = elements.by_ref().take(count.saturating_add(1)).count();
        if found == count && elements.rest.is_empty() {
            return Ok(());
        }
        let position = data.len() - elements.rest.len();
        if found == count || elements.rest.is_empty() {
            return Err(Error::invalid_argument(format!(
                "BYTES data holds {found} or more elements, expected {count}"
            )));
        }
        Err(Error::invalid_argument(format!(
            "BYTES data is malformed at byte {position}: element {found} does not end within the data"
        )))
    }
}

impl<'a> Iterator for BytesElements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (element, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(element)
    }
}

/// Writes elements in the layout of a BYTES tensor. An element longer than 4 GiB - 1 is cut there, which no accepted
/// request can reach.
pub fn encode_bytes_elements<'a>(elements: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Bytes {
    let elements = elements.into_iter();
    let total = elements.clone().map(|element| element.len() + 4).sum();
    let mut data = Vec::with_capacity(total);
    for element in elements {
        let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(&element[..length as usize]);
    }
    Bytes::from(data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(elements in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let data = encode_bytes_elements(elements.iter().map(Vec::as_slice));
            BytesElements::check(&data, elements.len()).expect("complete");
            let read: Vec<&[u8]> = BytesElements::new(&data).collect();
            prop_assert_eq!(read, elements.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(data in any::<Vec<u8>>(), count in 0usize..5) {
            let accepted = BytesElements::check(&data, count).is_ok();
            let read = BytesElements::new(&data).count();
            prop_assert!(!accepted || read == count);
        }
    }

    #[test]
    fn a_cut_element_is_refused() {
        let error = BytesElements::check(&[3, 0, 0, 0, b'a'], 1).expect_err("cut");
        assert!(error.message().contains("element 0 does not end"), "{error}");
    }
}
