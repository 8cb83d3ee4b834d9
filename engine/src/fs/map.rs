//! Mapping a file read-only.

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::Mmap;

/// Maps `file` read-only for as long as the bytes live.
///
/// The protocol that makes it sound stands with the callers: a file is mapped only when it is
/// sealed (nothing writes it any more), and it is written again (recycled) or cut only when no part
/// of the map is alive. `log::segment` keeps that by counting references; its test drives a segment
/// through seal, map, recycle.
#[allow(unsafe_code)]
pub(super) fn map_read_only(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the bytes must not change while the map lives. Within the process nobody writes or
    // cuts a sealed file while a part of its map is alive (see above), and the directory's lock
    // keeps other processes of ours out. A foreign program that writes into the data directory can
    // break this, as it can break any store; every read checks a CRC, so that it is noticed.
    let map = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_map_shows_the_file_and_outlives_the_handle() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"some bytes").unwrap();
        let bytes = map_read_only(&file).unwrap();
        drop(file);
        let part = bytes.slice(5..);
        drop(bytes);
        assert_eq!(&part[..], b"bytes");
    }

    #[test]
    fn an_empty_file_maps_to_nothing() {
        assert!(map_read_only(&tempfile::tempfile().unwrap()).unwrap().is_empty());
    }
}
