//! `--cache-config` and `--response-cache-byte-size`: how large the response cache is, in either of Triton's ways to say it.

use bytesize::ByteSize;

use crate::args::CacheArgs;

/// The cache's size in bytes; `None` where there is to be none.
///
/// # Errors
/// What is wrong with the options, and how they are written.
pub(super) fn bytes(args: &CacheArgs) -> Result<Option<u64>, String> {
    let size = match (&args.cache_config, args.response_cache_byte_size) {
        (Some(_), Some(_)) => {
            return Err(
                "--cache-config and --response-cache-byte-size both say how large the response cache is; give one"
                    .into(),
            );
        }
        (Some(config), None) => Some(size_in(config)?),
        (None, size) => size.map(|size| size.as_u64()),
    };
    match size {
        Some(0) => Err("the response cache must hold more than 0 bytes; leave its options out to have none".to_owned()),
        size => Ok(size),
    }
}

/// The size in `local,size=BYTES`.
fn size_in(config: &str) -> Result<u64, String> {
    let refuse =
        |why: &str| Err(format!("--cache-config {config}: {why}; write local,size=1048576 or local,size=64MiB"));
    let Some((name, setting)) = config.split_once(',') else { return refuse("the cache's settings are missing") };
    if name != "local" {
        return refuse(&format!("there is no cache '{name}', only 'local'"));
    }
    match setting.split_once('=') {
        Some(("size", size)) => match size.parse::<ByteSize>() {
            Ok(size) => Ok(size.as_u64()),
            Err(error) => refuse(&format!("'{size}' is no size ({error})")),
        },
        _ => refuse(&format!("'{setting}' is no setting of the cache 'local', which has only 'size'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_anything_else_is_refused() {
        for (config, expected) in [
            ("local,size=1048576", Ok(1 << 20)),
            ("local,size=64MiB", Ok(64 << 20)),
            ("local", Err("settings are missing")),
            ("redis,host=localhost", Err("only 'local'")),
            ("local,size=many", Err("is no size")),
            ("local,ttl=3", Err("only 'size'")),
        ] {
            match (size_in(config), expected) {
                (Ok(size), Ok(expected)) => assert_eq!(size, expected, "{config}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, _) => panic!("{config}: {got:?}"),
            }
        }
    }
}
