//! Sends ended spans to a collector, by OpenTelemetry's protocol over HTTP. Requests only put them into a bounded queue.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use inference::{EndedSpan, Parameter, SpanRecorder};
use metrics::{Counter, Unit, counter, describe_counter};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::tracing_config::TraceConfig;

/// How long the last spans may take at the end.
const LAST_EXPORT: Duration = Duration::from_secs(5);
/// Between two log lines about a collector that does not answer.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Describes the metrics of this module.
pub(crate) fn describe_metrics() {
    describe_counter!("panoply_trace_spans_exported_total", Unit::Count, "Spans that the collector has taken");
    describe_counter!(
        "panoply_trace_spans_dropped_total",
        Unit::Count,
        "Spans that were lost: the queue was full, or the collector did not take them"
    );
}

/// Where requests leave their spans. Past the bound they are dropped, and counted.
pub(crate) struct SpanQueue {
    sender: Sender<EndedSpan>,
    /// Where identifiers go on from.
    ids: AtomicU64,
    dropped: Counter,
}

impl SpanRecorder for SpanQueue {
    /// SplitMix64 over a random beginning.
    fn new_id(&self) -> u64 {
        let mut id = self.ids.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (id ^ (id >> 31)).max(1)
    }

    fn record(&self, span: EndedSpan) {
        if self.sender.try_send(span).is_err() {
            self.dropped.increment(1);
        }
    }
}

/// The task that sends.
pub(crate) struct Exporting {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what is left, and ends.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        if tokio::time::timeout(LAST_EXPORT, self.task).await.is_err() {
            tracing::warn!("the last spans could not be sent in time");
        }
    }
}

/// Starts the task; it waits until there are spans.
///
/// # Errors
/// When the environment's `OTEL_EXPORTER_OTLP_*` variables are not understood.
pub(crate) fn start(config: &TraceConfig) -> Result<(Arc<SpanQueue>, Exporting)> {
    let (sender, spans) = mpsc::channel(config.max_queue_size);
    let ids = AtomicU64::new(RandomState::new().hash_one(std::process::id()));
    let dropped = counter!("panoply_trace_spans_dropped_total", "reason" => "queue_full");
    let queue = Arc::new(SpanQueue { sender, ids, dropped });
    let export = Export {
        exporter: exporter(config)?,
        scope: InstrumentationScope::builder("panoply").with_version(env!("CARGO_PKG_VERSION")).build(),
        max_batch_size: config.max_batch_size,
        delay: config.schedule_delay,
        last_logged: None,
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(export.run(spans, stop.clone()));
    Ok((queue, Exporting { stop, task }))
}

fn exporter(config: &TraceConfig) -> Result<SpanExporter> {
    let client = HyperClient::with_default_connector(config.timeout, None);
    let builder = SpanExporter::builder().with_http().with_http_client(client).with_protocol(Protocol::HttpBinary);
    let builder = builder.with_timeout(config.timeout);
    let builder = match &config.url {
        Some(url) => builder.with_endpoint(url),
        None => builder,
    };
    let mut exporter = builder.build().context("spans cannot be exported (see OTEL_EXPORTER_OTLP_*)")?;
    exporter.set_resource(&resource(config));
    Ok(exporter)
}

/// What the collector is told about this server: `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`, and the options over them.
fn resource(config: &TraceConfig) -> Resource {
    let given = Resource::builder().build();
    let is_unnamed = given
        .get(&Key::from_static_str("service.name"))
        .is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let own = is_unnamed.then(|| KeyValue::new("service.name", "panoply"));
    let options = config.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder().with_attributes(own.into_iter().chain(options)).build()
}

struct Export {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    max_batch_size: usize,
    delay: Duration,
    last_logged: Option<Instant>,
}

impl Export {
    async fn run(mut self, mut spans: Receiver<EndedSpan>, stop: CancellationToken) {
        while let Some(batch) = self.next_batch(&mut spans, &stop).await {
            self.send(batch).await;
        }
    }

    /// Waits for spans, and then for more of them. `None` once it is time to stop and all is sent.
    async fn next_batch(&self, spans: &mut Receiver<EndedSpan>, stop: &CancellationToken) -> Option<Vec<EndedSpan>> {
        let mut batch = Vec::new();
        let first = tokio::select! {
            biased;
            span = spans.recv() => span,
            () = stop.cancelled() => None,
        };
        batch.push(first?);
        let full = async {
            while batch.len() < self.max_batch_size {
                let Some(span) = spans.recv().await else { break };
                batch.push(span);
            }
        };
        tokio::select! {
            () = full => {}
            () = tokio::time::sleep(self.delay) => {}
            () = stop.cancelled() => {}
        }
        Some(batch)
    }

    async fn send(&mut self, batch: Vec<EndedSpan>) {
        let count = batch.len() as u64;
        let batch = batch.into_iter().map(|span| span_data(span, &self.scope)).collect();
        match self.exporter.export(batch).await {
            Ok(()) => counter!("panoply_trace_spans_exported_total").increment(count),
            Err(error) => {
                counter!("panoply_trace_spans_dropped_total", "reason" => "export_failed").increment(count);
                if self.last_logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
                    self.last_logged = Some(Instant::now());
                    tracing::warn!(spans = count, "spans cannot be sent, and are lost: {error}");
                }
            }
        }
    }
}

fn span_data(span: EndedSpan, scope: &InstrumentationScope) -> SpanData {
    let EndedSpan { context, id, is_root, name, start, end, attributes, error } = span;
    let state: TraceState = context.state.parse().unwrap_or_default();
    let trace_id = TraceId::from_bytes(context.trace_id.to_be_bytes());
    SpanData {
        span_context: SpanContext::new(trace_id, span_id(id), TraceFlags::SAMPLED, false, state),
        parent_span_id: span_id(context.parent),
        parent_span_is_remote: is_root && context.parent != 0,
        span_kind: if is_root { SpanKind::Server } else { SpanKind::Internal },
        name,
        start_time: start,
        end_time: end,
        attributes: attributes.into_iter().map(|(name, value)| KeyValue::new(name, attribute(value))).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, |description| Status::Error { description: description.into() }),
        instrumentation_scope: scope.clone(),
    }
}

fn span_id(id: u64) -> SpanId {
    SpanId::from_bytes(id.to_be_bytes())
}

fn attribute(value: Parameter) -> Value {
    match value {
        Parameter::Bool(value) => value.into(),
        Parameter::Int64(value) => value.into(),
        Parameter::Double(value) => value.into(),
        Parameter::String(value) => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::SystemTime;

    use inference::TraceContext;

    use super::*;

    fn span() -> EndedSpan {
        EndedSpan {
            context: TraceContext { trace_id: 7, parent: 9, state: "a=b".into() },
            id: 3,
            is_root: true,
            name: "x".into(),
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::UNIX_EPOCH,
            attributes: vec![("n", Parameter::Int64(1))],
            error: Some("boom".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_a_dead_collector_holds_up_nothing() {
        let config = TraceConfig {
            max_queue_size: 2,
            max_batch_size: 1,
            url: Some("http://127.0.0.1:9/v1/traces".to_owned()),
            timeout: Duration::from_millis(200),
            ..TraceConfig::default()
        };
        let (queue, exporting) = start(&config).expect("valid");
        (0..1000).for_each(|_| queue.record(span()));
        assert_eq!(queue.sender.capacity(), 0);
        let ids: HashSet<u64> = (0..1000).map(|_| queue.new_id()).collect();
        assert_eq!(ids.len(), 1000);
        let began = Instant::now();
        exporting.finish().await;
        assert!(began.elapsed() < LAST_EXPORT + Duration::from_secs(1));
    }

    #[test]
    fn spans_are_told_as_opentelemetry_has_them() {
        let data = span_data(span(), &InstrumentationScope::builder("t").build());
        assert_eq!(data.span_context.trace_id().to_string(), format!("{:032x}", 7));
        assert_eq!((data.parent_span_id.to_string(), data.parent_span_is_remote), (format!("{:016x}", 9), true));
        assert_eq!(data.span_context.trace_state().header(), "a=b");
        assert_eq!(data.status, Status::error("boom"));
    }
}
