//! Rate limiters of instance groups.

use inference::{RateLimiter, ResourceDemand};

use super::{check_problems, only};

#[test]
fn rate_limiters_are_read() {
    let config = "backend: 'x' instance_group { rate_limiter { priority: 2
resources [ { name: 'R1' count: 4 }, { name: 'R2' global: true } ] } }";
    let spec = only(config).expect("valid").spec;
    let resource = |name: &str, global, count| ResourceDemand { name: name.to_owned(), global, count };
    let resources = vec![resource("R1", false, 4), resource("R2", true, 1)];
    assert_eq!(spec.instance_groups[0].rate_limiter, RateLimiter { resources, priority: 2 });
    assert_eq!(only("backend: 'x'").expect("valid").spec.instance_groups[0].rate_limiter, RateLimiter::default());
    let nameless = "backend: 'x' instance_group { rate_limiter { resources { count: 1 } } }";
    check_problems(nameless, &["1:46: `name` is missing"]);
}
