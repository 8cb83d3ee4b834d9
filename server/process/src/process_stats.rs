//! Figures of the process itself, by the names that Prometheus client libraries use.
//!
//! Read from `/proc/self`; on a system without it they are absent.

use std::fs;

/// The unit of the CPU times in `/proc/self/stat`: USER_HZ, which the kernel's ABI fixes at 100 on
/// the architectures that Rust's tier 1 covers.
const TICKS_PER_SECOND: f64 = 100.0;

/// The page size of `/proc/self/stat`'s resident set is avoided by reading `status`, in kB.
const BYTES_PER_KB: f64 = 1024.0;

pub(crate) fn describe() {
    metrics::describe_gauge!("process_resident_memory_bytes", "Resident memory size.");
    metrics::describe_gauge!("process_open_fds", "Open file descriptors.");
}

/// The CPU time in the text form of Prometheus: the recorder counts in whole numbers only.
pub(crate) fn cpu_seconds() -> Option<String> {
    let ticks = cpu_ticks(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(format!(
        "# HELP process_cpu_seconds_total User and system CPU time spent.\n\
         # TYPE process_cpu_seconds_total counter\n\
         process_cpu_seconds_total {}\n",
        ticks / TICKS_PER_SECOND
    ))
}

pub(crate) fn record() {
    if let Some(kb) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(rss_kb) {
        metrics::gauge!("process_resident_memory_bytes").set(kb * BYTES_PER_KB);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(entries.count() as f64);
    }
}

fn rss_kb(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User plus system time: fields 14 and 15, counted from behind the command, which may hold spaces.
fn cpu_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(rss_kb("Name:\tx\nVmRSS:\t    1234 kB\nThreads: 1\n"), Some(1234.0));
        assert_eq!(rss_kb("Name: x"), None);
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(42.0));
        assert_eq!(cpu_ticks("nothing"), None);
    }
}
