//! Files that are disks: made whole or not at all, copied without filling their holes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// How much is looked at at once for zeros: a page, and what file systems keep together.
const BLOCK: usize = 64 << 10;
/// A block that is not written.
static ZEROS: [u8; BLOCK] = [0; BLOCK];
/// How much is copied by one call.
const PIECE: u64 = 1 << 30;

/// The name under which a file is made, before it gets its own.
pub(in crate::volume::driver) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Makes a new file that only this user reads; whatever was there is gone.
pub(in crate::volume::driver) fn begin(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a finished file its name, for good: it is there after a power cut.
pub(in crate::volume::driver) fn finish(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    sync_folder(to)
}

/// Removes a file, for good. None is fine.
pub(in crate::volume::driver) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes `to` the bytes of `from`. Shares them where the file system can; elsewhere copies what is there, holes stay holes.
pub(in crate::volume::driver) fn copy(from: &File, to: &File) -> io::Result<()> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => return Ok(()),
        // Another file system, or one that can't.
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, length)? {
        copy_range(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

/// The next stretch that is not a hole.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(length);
    Ok((start < end).then_some((start, end)))
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let piece = usize::try_from((end - read_at).min(PIECE)).unwrap_or(BLOCK);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), piece) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOSYS) => {
                let mut buffer = vec![0; BLOCK];
                let piece = usize::try_from((end - read_at).min(BLOCK as u64)).unwrap_or(BLOCK);
                from.read_exact_at(&mut buffer[..piece], read_at)?;
                to.write_all_at(&buffer[..piece], write_at)?;
                read_at += piece as u64;
                write_at += piece as u64;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes bytes, but for blocks of zeros: the file is new, so holes are there already.
pub(in crate::volume::driver) fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = offset;
    for block in bytes.chunks(BLOCK) {
        if !ZEROS.starts_with(block) {
            file.write_all_at(block, at)?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (temp.path().join("one"), temp.path().join("two"));
        let from = begin(&one).unwrap();
        from.set_len(256 << 20).unwrap();
        from.write_all_at(&[7; 100_000], 4096).unwrap();
        from.write_all_at(&[8; 4096], (256 << 20) - 4096).unwrap();
        let to = begin(&two).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 256 << 20);
        let mut read = vec![0; 100_000];
        to.read_exact_at(&mut read, 4096).unwrap();
        assert!(read.iter().all(|byte| *byte == 7));
        to.read_exact_at(&mut read[..4096], (256 << 20) - 4096).unwrap();
        assert!(read[..4096].iter().all(|byte| *byte == 8));
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "holes were filled");
    }

    #[test]
    fn zeros_are_not_written() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("sparse");
        let file = begin(&path).unwrap();
        let mut bytes = vec![0; 4 << 20];
        bytes[3 << 20] = 1;
        write_sparse(&file, 0, &bytes).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 <= 2 * BLOCK as u64);
        finish(&file, &path, &temp.path().join("done")).unwrap();
        assert_eq!(fs::read(temp.path().join("done")).unwrap()[3 << 20], 1);
        remove(&path).unwrap();
    }
}
