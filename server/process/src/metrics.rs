//! The process's metrics recorder and its Prometheus text.
//!
//! Recording goes through the macros of the crate `metrics`, whose recorder is global; servers that
//! share a process share it, and each of their `/metrics` shows all of the process.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of histograms whose name ends in `_seconds`: 50 µs to 10 s.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03,
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Bounds of histograms whose name ends in `_items`: batch sizes.
const ITEMS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
    16384.0, 65536.0,
];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder if that has not happened yet, and returns the handle to it.
pub fn recorder() -> &'static PrometheusHandle {
    HANDLE.get_or_init(|| {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics will be empty");
        }
        crate::process_stats::describe();
        handle
    })
}

fn builder() -> PrometheusBuilder {
    let mut builder = PrometheusBuilder::new();
    for (suffix, bounds) in [("_seconds", SECONDS), ("_items", ITEMS)] {
        builder = builder
            .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
            .expect("the lists of bounds are not empty");
    }
    builder
}

/// The text of `/metrics`, with the process's own figures (memory, CPU, open files) read now.
pub fn render() -> String {
    let handle = recorder();
    crate::process_stats::record();
    handle.render() + &crate::process_stats::cpu_seconds().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_share_the_recorder_and_see_each_other() {
        recorder();
        recorder();
        metrics::counter!("switchboard_test_total", "server" => "a").increment(2);
        metrics::counter!("switchboard_test_total", "server" => "b").increment(3);
        metrics::histogram!("switchboard_test_seconds").record(0.000_25);
        let text = render();
        assert!(text.contains("switchboard_test_total{server=\"a\"} 2"), "{text}");
        assert!(text.contains("switchboard_test_total{server=\"b\"} 3"), "{text}");
        assert!(text.contains("switchboard_test_seconds_bucket{le=\"0.0003\"} 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        assert!(text.contains("# TYPE process_cpu_seconds_total counter"), "{text}");
    }
}
