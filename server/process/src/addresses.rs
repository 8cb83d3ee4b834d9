//! `addresses.json`: where a running process listens, for scripts that used port 0.
//!
//! An object from listener names to addresses. It appears and changes as a whole (temporary file,
//! then rename), so that a reader never sees half of it. It is not durable: it describes a process
//! that a crash of the machine ends anyway.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "addresses.json";

/// Writes `directory/addresses.json` and returns its path.
///
/// # Errors
/// Those of the file system.
pub fn write(directory: &Path, addresses: &[(&str, SocketAddr)]) -> io::Result<PathBuf> {
    let object: BTreeMap<&str, String> =
        addresses.iter().map(|(name, address)| (*name, address.to_string())).collect();
    let mut text = serde_json::to_string_pretty(&object)?;
    text.push('\n');
    let path = directory.join(FILE_NAME);
    let staged = directory.join(format!(".{FILE_NAME}.{}", std::process::id()));
    fs::write(&staged, text)?;
    fs::rename(&staged, &path)?;
    Ok(path)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// Those of the file system; `InvalidData` when it is not such a file.
pub fn read(directory: &Path) -> io::Result<BTreeMap<String, SocketAddr>> {
    Ok(serde_json::from_slice(&fs::read(directory.join(FILE_NAME))?)?)
}

/// Removes the file at shutdown; one that is not there is no error.
pub fn remove(directory: &Path) {
    let _ = fs::remove_file(directory.join(FILE_NAME));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let grpc: SocketAddr = "127.0.0.1:7400".parse().unwrap();
        let http: SocketAddr = "[::1]:7401".parse().unwrap();
        write(dir.path(), &[("store-http", http)]).unwrap();
        let path = write(dir.path(), &[("store-grpc", grpc), ("store-http", http)]).unwrap();
        assert_eq!(path, dir.path().join(FILE_NAME));
        let found = read(dir.path()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found["store-grpc"], grpc);
        assert_eq!(found["store-http"], http);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        remove(dir.path());
        remove(dir.path());
        assert!(read(dir.path()).is_err());
    }
}
