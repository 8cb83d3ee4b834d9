//! Figures that the system keeps about processes, and small statistics.

use std::{
    io::ErrorKind,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// User and system time of a process so far, in steps of 10 ms.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = read(pid, "stat")?;
    // Behind the name, which may hold anything, fields 14 and 15 of the line.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// User and system time of this process so far.
pub fn own_cpu_seconds() -> Result<f64> {
    cpu_seconds(std::process::id())
}

/// Memory of a process that no file stands behind, in bytes. Maps of files are left out: the system
/// takes their pages back as it likes.
pub fn memory_bytes(pid: u32) -> Result<u64> {
    Ok(field(&read(pid, "status")?, "RssAnon:")? * 1024)
}

/// The same of this process.
pub fn own_memory_bytes() -> Result<u64> {
    memory_bytes(std::process::id())
}

/// Memory of this process that is resident, files that it has mapped included, in bytes.
pub fn own_resident_bytes() -> Result<u64> {
    Ok(field(&read(std::process::id(), "status")?, "VmRSS:")? * 1024)
}

/// Bytes of all files below a directory. Files may come and go meanwhile.
pub fn files_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        bytes += if metadata.is_dir() { files_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Bytes that a process has caused to be written to a disk.
pub fn written_bytes(pid: u32) -> Result<u64> {
    field(&read(pid, "io")?, "write_bytes:")
}

/// Bytes written so far by the device that a directory lies on, by whomever; `None` when it is not
/// known which that is.
pub fn device_written_bytes(dir: &Path) -> Result<Option<u64>> {
    let device = rustix::fs::stat(dir)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(text) = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")) else {
        return Ok(None);
    };
    // The seventh field: sectors of 512 bytes, whatever the device calls a sector.
    let sectors = text.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    Ok(sectors.map(|sectors| sectors * 512))
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

fn field(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("no {name} in what the system says of a process"))
}

/// The sample that a share of all samples does not exceed; zero when there is none.
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let last = samples.len().saturating_sub(1) as f64;
    samples.get((last * share) as usize).copied().unwrap_or_default()
}

/// Runs `work` and returns what it gives with the seconds it took.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let started = Instant::now();
    let value = work()?;
    Ok((value, started.elapsed().as_secs_f64()))
}

/// The median of numbers; zero when there is none.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
