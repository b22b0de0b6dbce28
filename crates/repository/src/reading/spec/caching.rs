//! `response_cache`, and the models that cannot have it.

use protocol::model_config::ModelConfig;
use protocol::model_config::model_config::SchedulingChoice;

use super::Findings;

/// Whether answers of the model may be cached. Refused, in Triton's words, where equal requests may have different answers.
pub(super) fn response_cache(name: &str, config: &ModelConfig, findings: &mut Findings) -> bool {
    if !config.response_cache.as_ref().is_some_and(|cache| cache.enable) {
        return false;
    }
    let is_decoupled = config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled);
    let is_sequence = matches!(config.scheduling_choice, Some(SchedulingChoice::SequenceBatching(_)));
    for (is_so, what) in
        [(is_decoupled, "'decoupled' transaction policy"), (is_sequence, "'sequence batching' scheduler")]
    {
        if is_so {
            findings.add(
                "response_cache",
                format!("Response Cache does not currently support model {name} with {what}. Please disable the response cache."),
            );
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use protocol::model_config::{ModelResponseCache, ModelSequenceBatching, ModelTransactionPolicy};

    use super::*;

    #[test]
    fn models_that_may_answer_equal_requests_differently_are_refused() {
        let cached =
            ModelConfig { response_cache: Some(ModelResponseCache { enable: true }), ..ModelConfig::default() };
        let sequences = SchedulingChoice::SequenceBatching(ModelSequenceBatching::default());
        let decoupled = ModelTransactionPolicy { decoupled: true };
        let cases = [
            (ModelConfig::default(), false, None),
            (cached.clone(), true, None),
            (ModelConfig { scheduling_choice: Some(sequences), ..cached.clone() }, true, Some("'sequence batching'")),
            (ModelConfig { model_transaction_policy: Some(decoupled), ..cached }, true, Some("'decoupled'")),
        ];
        for (config, enabled, refusal) in cases {
            let mut findings = Findings::default();
            assert_eq!(response_cache("m", &config, &mut findings), enabled);
            let found: Vec<_> = findings.0.iter().map(|finding| finding.message.as_str()).collect();
            match refusal {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(text) => assert!(found[0].starts_with("Response Cache does not") && found[0].contains(text)),
            }
        }
    }
}
