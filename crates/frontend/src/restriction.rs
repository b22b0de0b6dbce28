//! APIs that answer only to clients that know a key (Triton's restricted APIs). HTTP's routes name their group of APIs where they
//! are made, and gRPC's calls have theirs from a table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::MethodRouter;
use http::{HeaderMap, HeaderName};
use subtle::ConstantTimeEq;

use crate::status::{Failure, Refusal};
use crate::{Shared, grpc, reply};

/// What stands in front of a key in gRPC's metadata.
const GRPC_PREFIX: &str = "triton-grpc-protocol-";

/// A group of APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Api {
    Health,
    Metadata,
    Inference,
    SharedMemory,
    ModelConfig,
    ModelRepository,
    Statistics,
    Trace,
    Logging,
}

/// The groups by Triton's names.
const NAMES: [(&str, Api); 9] = [
    ("health", Api::Health),
    ("metadata", Api::Metadata),
    ("inference", Api::Inference),
    ("shared-memory", Api::SharedMemory),
    ("model-config", Api::ModelConfig),
    ("model-repository", Api::ModelRepository),
    ("statistics", Api::Statistics),
    ("trace", Api::Trace),
    ("logging", Api::Logging),
];

/// The group of a gRPC call, from its path.
fn of_call(path: &str) -> Option<Api> {
    if path.starts_with("/grpc.health.v1.") {
        return Some(Api::Health);
    }
    match path.strip_prefix("/inference.GRPCInferenceService/")? {
        "ServerLive" | "ServerReady" | "ModelReady" => Some(Api::Health),
        "ServerMetadata" | "ModelMetadata" => Some(Api::Metadata),
        "ModelInfer" | "ModelStreamInfer" => Some(Api::Inference),
        "ModelConfig" => Some(Api::ModelConfig),
        "ModelStatistics" => Some(Api::Statistics),
        "RepositoryIndex" | "RepositoryModelLoad" | "RepositoryModelUnload" => Some(Api::ModelRepository),
        "TraceSetting" => Some(Api::Trace),
        "LogSettings" => Some(Api::Logging),
        call if call.contains("SharedMemory") => Some(Api::SharedMemory),
        _ => None,
    }
}

/// The header that an API wants, and its value.
#[derive(Clone)]
struct Key {
    header: HeaderName,
    value: Arc<[u8]>,
}

impl Key {
    fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if headers.get(&self.header).is_some_and(|given| given.as_bytes().ct_eq(&self.value).into()) {
            return Ok(());
        }
        let message = format!("This API is restricted, expecting header '{}'", self.header);
        Err(Failure::Refused(Refusal::Restricted, message))
    }
}

/// Which APIs want which header. None do by default.
#[derive(Clone, Default)]
pub struct Restrictions(BTreeMap<Api, Key>);

impl fmt::Debug for Restrictions {
    /// Without the values, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(api, key)| (api, &key.header))).finish()
    }
}

impl Restrictions {
    /// Reads rules of the HTTP port, each like `inference,health:key=value` (`--http-restricted-api`).
    ///
    /// # Errors
    /// What is wrong with a rule.
    pub fn of_http(rules: &[String]) -> Result<Self, String> {
        Self::parse(rules, "")
    }

    /// The same for the gRPC port (`--grpc-restricted-protocol`), where headers begin with `triton-grpc-protocol-`.
    ///
    /// # Errors
    /// What is wrong with a rule.
    pub fn of_grpc(rules: &[String]) -> Result<Self, String> {
        Self::parse(rules, GRPC_PREFIX)
    }

    fn parse(rules: &[String], prefix: &str) -> Result<Self, String> {
        let mut restrictions = BTreeMap::new();
        for rule in rules {
            // A rule may hold a secret: no error shows more of it than names.
            let wrong = || "expected a rule like inference,health:header=value".to_owned();
            let (apis, key) = rule.split_once(':').ok_or_else(wrong)?;
            let (header, value) = key.split_once('=').ok_or_else(wrong)?;
            let header = format!("{prefix}{}", header.trim()).parse::<HeaderName>().ok();
            let header = header.filter(|_| !key.starts_with('=')).ok_or_else(wrong)?;
            if value.is_empty() {
                return Err("a rule's value must not be empty".to_owned());
            }
            let key = Key { header, value: value.as_bytes().into() };
            for name in apis.split(',').map(str::trim) {
                let api = NAMES.iter().find(|(known, _)| *known == name).map(|(_, api)| *api).ok_or_else(|| {
                    let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                    format!("unknown API '{name}'; expected one of {}", known.join(", "))
                })?;
                if restrictions.insert(api, key.clone()).is_some() {
                    return Err(format!("API '{name}' can not be specified in multiple rules"));
                }
            }
        }
        Ok(Restrictions(restrictions))
    }

    fn check(&self, api: Option<Api>, headers: &HeaderMap) -> Result<(), Failure> {
        api.and_then(|api| self.0.get(&api)).map_or(Ok(()), |key| key.check(headers))
    }
}

/// The routes of the HTTP port. None is without a group, and a route costs nothing more where its group is not restricted.
pub(crate) struct Guarded<'a> {
    router: Router<Shared>,
    restrictions: &'a Restrictions,
}

impl<'a> Guarded<'a> {
    /// No routes yet.
    pub(crate) fn new(restrictions: &'a Restrictions) -> Self {
        Guarded { router: Router::new(), restrictions }
    }

    /// Adds a route, which belongs to `api`.
    pub(crate) fn route(mut self, api: Api, path: &str, mut handlers: MethodRouter<Shared>) -> Self {
        if let Some(key) = self.restrictions.0.get(&api).cloned() {
            let refuse = |failure: &Failure| reply::error(failure.status(false).http, failure.message());
            handlers = handlers.layer(from_fn(move |request: Request, next: Next| {
                pass(key.check(request.headers()), refuse, request, next)
            }));
        }
        self.router = self.router.route(path, handlers);
        self
    }

    /// All of them.
    pub(crate) fn into_router(self) -> Router<Shared> {
        self.router
    }
}

/// Guards the calls of the gRPC port; costs nothing where nothing is restricted.
pub(crate) fn guard_grpc(router: Router, restrictions: &Restrictions) -> Router {
    if restrictions.0.is_empty() {
        return router;
    }
    let restrictions = restrictions.clone();
    router.layer(from_fn(move |request: Request, next: Next| {
        let outcome = restrictions.check(of_call(request.uri().path()), request.headers());
        pass(outcome, grpc::refusal, request, next)
    }))
}

async fn pass(
    outcome: Result<(), Failure>,
    refuse: impl FnOnce(&Failure) -> Response,
    request: Request,
    next: Next,
) -> Response {
    match outcome {
        Ok(()) => next.run(request).await,
        Err(failure) => refuse(&failure),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(rules: &[&str]) -> Result<Restrictions, String> {
        Restrictions::of_http(&rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn rules_are_tritons() {
        let restrictions = parse(&["inference, health:Infer-Key=a=b:c", "trace:t=u"]).expect("valid");
        let headers =
            |value| HeaderMap::from_iter([(HeaderName::from_static("infer-key"), HeaderValue::from_static(value))]);
        restrictions.check(Some(Api::Inference), &headers("a=b:c")).expect("the right key");
        restrictions.check(Some(Api::Metadata), &HeaderMap::new()).expect("not restricted");
        restrictions.check(None, &HeaderMap::new()).expect("not restricted");
        for wrong in [headers("a=b:"), headers("a=b:cc"), headers(""), HeaderMap::new()] {
            let failure = restrictions.check(Some(Api::Health), &wrong).expect_err("the wrong key");
            assert_eq!((failure.status(false).http, failure.status(false).grpc), (403, 14));
            assert_eq!(failure.message(), "This API is restricted, expecting header 'infer-key'");
        }
        assert!(!format!("{restrictions:?}").contains("a=b"), "no secrets");
        for (rules, problem) in [
            (&["inference"][..], "expected a rule like inference,health:header=value"),
            (&["inference:key"], "expected a rule like"),
            (&["inference:=x"], "expected a rule like"),
            (&["inference:a b=x"], "expected a rule like"),
            (&["inference:key="], "a rule's value must not be empty"),
            (&["infer:k=v"], "unknown API 'infer'; expected one of health, metadata, inference"),
            (&["trace:k=v", "health,trace:l=w"], "API 'trace' can not be specified in multiple rules"),
        ] {
            assert!(parse(rules).expect_err("wrong").contains(problem), "{rules:?}");
        }
        let empty = Key { header: HeaderName::from_static("k"), value: Arc::from(&b""[..]) };
        empty.check(&HeaderMap::new()).expect_err("what is missing equals nothing");
        let rule = ["logging:k=v".to_owned()];
        let failure = Restrictions::of_grpc(&rule).expect("valid").check(Some(Api::Logging), &HeaderMap::new());
        assert!(failure.expect_err("no key").message().ends_with("'triton-grpc-protocol-k'"));
    }

    #[test]
    fn every_call_of_the_service_has_a_group() {
        use prost::Message;
        let set = prost_types::FileDescriptorSet::decode(protocol::FILE_DESCRIPTOR_SET).expect("the build wrote it");
        let services = set.file.iter().flat_map(|file| &file.service);
        let service = services.clone().find(|service| service.name() == "GRPCInferenceService").expect("it is there");
        for method in &service.method {
            let path = format!("/inference.GRPCInferenceService/{}", method.name());
            assert!(of_call(&path).is_some(), "{path}");
        }
        assert_eq!(of_call("/grpc.health.v1.Health/Check"), Some(Api::Health));
        assert_eq!(of_call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), None);
    }
}
