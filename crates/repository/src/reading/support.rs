//! What becomes of each field of Triton's model configuration: used, passed over, or refused.
//!
//! A field is passed over only where it cannot change an answer; anything else that is not supported yet is refused, so
//! that nobody relies on what does not happen.

use protocol::SetField;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It is read, or holds a message whose fields are listed here.
    Used,
    /// It cannot change an answer, because …
    PassedOver(&'static str),
    /// Not supported yet; without it …
    Refused(&'static str),
}

use Support::{PassedOver, Refused, Used};

/// Every field of every message that is read. The fields of a message that is passed over or refused are not listed.
const TABLE: &[(&str, &[(&str, Support)])] = &[
    (
        "ModelConfig",
        &[
            ("name", Used),
            ("platform", Used),
            ("backend", Used),
            ("runtime", PassedOver("it names the file of Triton's own backend library; `backend` decides here")),
            ("version_policy", Used),
            ("max_batch_size", Used),
            ("input", Used),
            ("output", Used),
            ("batch_input", Used),
            ("batch_output", Used),
            ("optimization", PassedOver("it trades speed for memory; the model computes the same")),
            ("dynamic_batching", Used),
            ("sequence_batching", Used),
            ("ensemble_scheduling", Used),
            ("instance_group", Used),
            ("default_model_filename", Used),
            ("cc_model_filenames", Refused("another model file than the one meant for the GPU would be loaded")),
            ("metric_tags", Used),
            ("parameters", Used),
            ("model_warmup", Used),
            ("model_operations", Refused("the model's own operators would be missing")),
            ("model_transaction_policy", Used),
            ("model_repository_agents", Refused("the agents would not check or change the model's files")),
            ("response_cache", Used),
            ("model_metrics", Used),
        ],
    ),
    (
        "ModelInput",
        &[
            ("name", Used),
            ("data_type", Used),
            ("format", PassedOver("it describes the tensor and converts nothing")),
            ("dims", Used),
            ("reshape", Used),
            ("is_shape_tensor", Refused("its values would not be taken as a shape")),
            ("allow_ragged_batch", Used),
            ("optional", Used),
            ("is_non_linear_format_io", Refused("the tensor would be in the linear format")),
        ],
    ),
    (
        "ModelOutput",
        &[
            ("name", Used),
            ("data_type", Used),
            ("dims", Used),
            ("reshape", Used),
            ("label_filename", Used),
            ("is_shape_tensor", Refused("its values would not be taken as a shape")),
            ("is_non_linear_format_io", Refused("the tensor would be taken for the linear format")),
        ],
    ),
    ("BatchInput", &[("kind", Used), ("target_name", Used), ("data_type", Used), ("source_input", Used)]),
    ("BatchOutput", &[("target_name", Used), ("kind", Used), ("source_input", Used)]),
    ("ModelTensorReshape", &[("shape", Used)]),
    ("ModelVersionPolicy", &[("latest", Used), ("all", Used), ("specific", Used)]),
    ("ModelVersionPolicy.Latest", &[("num_versions", Used)]),
    ("ModelVersionPolicy.All", &[]),
    ("ModelVersionPolicy.Specific", &[("versions", Used)]),
    (
        "ModelInstanceGroup",
        &[
            ("name", PassedOver("it labels instances")),
            ("kind", Used),
            ("count", Used),
            ("rate_limiter", Used),
            ("gpus", Used),
            ("secondary_devices", Refused("the model would not run on that device")),
            ("profile", Refused("the model would run with another optimization profile")),
            ("passive", Refused("the instances would get requests")),
            ("host_policy", PassedOver("it says which CPU cores and memory are near")),
        ],
    ),
    ("ModelEnsembling", &[("step", Used), ("max_inflight_requests", Used)]),
    ("ModelRateLimiter", &[("resources", Used), ("priority", Used)]),
    ("ModelRateLimiter.Resource", &[("name", Used), ("global", Used), ("count", Used)]),
    (
        "ModelEnsembling.Step",
        &[
            ("model_name", Used),
            ("model_version", Used),
            ("input_map", Used),
            ("output_map", Used),
            ("model_namespace", Refused("the model would be looked for in this archive")),
        ],
    ),
    (
        "ModelDynamicBatching",
        &[
            ("preferred_batch_size", Used),
            ("max_queue_delay_microseconds", Used),
            ("preserve_ordering", Used),
            ("priority_levels", Used),
            ("default_priority_level", Used),
            ("default_queue_policy", Used),
            ("priority_queue_policy", Used),
        ],
    ),
    (
        "ModelQueuePolicy",
        &[
            ("timeout_action", Used),
            ("default_timeout_microseconds", Used),
            ("allow_timeout_override", Used),
            ("max_queue_size", Used),
        ],
    ),
    ("ModelResponseCache", &[("enable", Used)]),
    (
        "ModelSequenceBatching",
        &[
            ("direct", Used),
            ("oldest", Used),
            ("max_sequence_idle_microseconds", Used),
            ("control_input", Used),
            ("state", Used),
            ("iterative_sequence", Refused("a request would run once, and not until the model says that it is done")),
        ],
    ),
    (
        "ModelSequenceBatching.StrategyDirect",
        &[("max_queue_delay_microseconds", Used), ("minimum_slot_utilization", Used)],
    ),
    (
        "ModelSequenceBatching.StrategyOldest",
        &[
            ("max_candidate_sequences", Used),
            ("preferred_batch_size", Used),
            ("max_queue_delay_microseconds", Used),
            ("preserve_ordering", Used),
        ],
    ),
    ("ModelSequenceBatching.ControlInput", &[("name", Used), ("control", Used)]),
    (
        "ModelSequenceBatching.Control",
        &[
            ("kind", Used),
            ("int32_false_true", Used),
            ("fp32_false_true", Used),
            ("bool_false_true", Used),
            ("data_type", Used),
        ],
    ),
    (
        "ModelSequenceBatching.State",
        &[
            ("input_name", Used),
            ("output_name", Used),
            ("data_type", Used),
            ("dims", Used),
            ("initial_state", Used),
            ("use_same_buffer_for_input_output", PassedOver("it saves memory; the state is the same")),
            ("use_growable_memory", PassedOver("it saves memory; the state is the same")),
        ],
    ),
    (
        "ModelSequenceBatching.InitialState",
        &[
            ("name", PassedOver("it labels the state")),
            ("data_type", Used),
            ("dims", Used),
            ("zero_data", Used),
            ("data_file", Used),
        ],
    ),
    ("ModelWarmup", &[("name", Used), ("batch_size", Used), ("inputs", Used), ("count", Used)]),
    (
        "ModelWarmup.Input",
        &[("data_type", Used), ("dims", Used), ("zero_data", Used), ("random_data", Used), ("input_data_file", Used)],
    ),
    ("ModelParameter", &[("string_value", Used)]),
    ("ModelTransactionPolicy", &[("decoupled", Used)]),
    ("ModelMetrics", &[("metric_control", Used)]),
    ("ModelMetrics.MetricControl", &[("metric_identifier", Used), ("histogram_options", Used)]),
    ("ModelMetrics.MetricControl.MetricIdentifier", &[("family", Used)]),
    ("ModelMetrics.MetricControl.HistogramOptions", &[("buckets", Used)]),
];

/// What becomes of a field; `None` for a field inside something that is passed over or refused as a whole.
pub(super) fn of(field: &SetField) -> Option<Support> {
    let (_, fields) = TABLE.iter().find(|(message, _)| *message == field.message)?;
    fields.iter().find(|(name, _)| *name == field.field).map(|(_, support)| *support)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that Triton adds must be decided here before it can be accepted.
    #[test]
    fn every_field_that_can_be_reached_is_listed_exactly_once() {
        let mut queue = vec!["ModelConfig".to_owned()];
        let mut reached = Vec::new();
        while let Some(message) = queue.pop() {
            let (_, listed) = TABLE.iter().find(|(name, _)| *name == message).unwrap_or_else(|| panic!("{message}"));
            let fields = protocol::message_fields(&message).expect("a message of Triton's");
            let mut expected: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            let mut names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
            expected.sort_unstable();
            names.sort_unstable();
            assert_eq!(names, expected, "{message}");
            for (name, held) in fields {
                let used = listed.iter().any(|(listed, support)| *listed == name && *support == Used);
                queue.extend(held.filter(|held| used && !reached.contains(held) && !queue.contains(held)));
            }
            reached.push(message);
        }
        assert_eq!(reached.len(), TABLE.len(), "the table lists a message that cannot be reached: {reached:?}");
    }
}
