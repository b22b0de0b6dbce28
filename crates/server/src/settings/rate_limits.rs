//! `--rate-limit` and `--rate-limit-resource`.

use scheduler::ResourceLimit;

use crate::args::RateLimit;

/// What there is of the resources that instances ask for; `None` where rates are not limited.
///
/// # Errors
/// The first resource that is not `name:count` or `name:count:gpu`, or that nothing would heed.
pub(super) fn rate_limits(mode: RateLimit, resources: &[String]) -> Result<Option<Vec<ResourceLimit>>, String> {
    match mode {
        RateLimit::ExecutionCount => resources.iter().map(|text| resource(text)).collect::<Result<_, _>>().map(Some),
        RateLimit::Off if resources.is_empty() => Ok(None),
        RateLimit::Off => Err("--rate-limit-resource needs --rate-limit execution_count".to_owned()),
    }
}

fn resource(text: &str) -> Result<ResourceLimit, String> {
    let wrong = || format!("--rate-limit-resource is '{text}', expected name:count or name:count:gpu, such as R1:10:0");
    let mut parts = text.trim().split(':');
    let (name, count, gpu) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let count = count.and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let gpu = gpu.map(|gpu| gpu.parse::<u32>().map_err(|_| wrong())).transpose()?;
    if name.is_empty() || parts.next().is_some() {
        return Err(wrong());
    }
    Ok(ResourceLimit { name: name.to_owned(), count, gpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mode: RateLimit, text: &[&str]) -> Result<Option<Vec<ResourceLimit>>, String> {
        rate_limits(mode, &text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn resources_have_a_count_and_perhaps_a_gpu() {
        let limit = |name: &str, count, gpu| ResourceLimit { name: name.to_owned(), count, gpu };
        let given = of(RateLimit::ExecutionCount, &["R1:10", "r2:3:1"]);
        assert_eq!(given, Ok(Some(vec![limit("R1", 10, None), limit("r2", 3, Some(1))])));
        assert_eq!(of(RateLimit::ExecutionCount, &[]), Ok(Some(Vec::new())));
        assert_eq!(of(RateLimit::Off, &[]), Ok(None));
        for wrong in ["R1", "R1:", ":3", "R1:x", "R1:-1", "R1:1:2:3", "R1:1:gpu"] {
            let problem = of(RateLimit::ExecutionCount, &[wrong]).expect_err(wrong);
            assert!(problem.contains(&format!("is '{wrong}', expected name:count")), "{problem}");
        }
        assert!(of(RateLimit::Off, &["R1:1"]).expect_err("unheeded").contains("needs --rate-limit execution_count"));
    }
}
