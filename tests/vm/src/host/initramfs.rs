//! The guest's files, as the kernel unpacks them: a cpio archive in the format `newc`.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use anyhow::{Context, Result};

/// An archive that grows.
#[derive(Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    count: u32,
}

const LINK: u32 = 0o120_777;
const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const PROGRAM: u32 = REGULAR | 0o755;

impl Initramfs {
    /// A directory, which must stand before what is in it. Without a slash at the beginning.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[]);
    }

    /// A file that everybody may read and execute.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content);
    }

    /// All that is in a directory, as if it were the root: directories, links and files, whose owner is root.
    pub fn tree(&mut self, directory: &Path) -> Result<()> {
        self.below(directory, "")
    }

    fn below(&mut self, directory: &Path, prefix: &str) -> Result<()> {
        let entries: io::Result<Vec<_>> = fs::read_dir(directory)?.collect();
        let mut entries = entries.with_context(|| format!("cannot read {}", directory.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (name, path) = (format!("{prefix}{}", entry.file_name().to_string_lossy()), entry.path());
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                self.entry(&name, LINK, fs::read_link(&path)?.as_os_str().as_bytes());
            } else if kind.is_dir() {
                self.directory(&name);
                self.below(&path, &format!("{name}/"))?;
            } else {
                let mode = REGULAR | entry.metadata()?.mode() & 0o777;
                self.entry(&name, mode, &fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// The archive with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let (inode, links, size, name_size) = (self.count, 1, content.len(), path.len() + 1);
        self.bytes.extend(b"070701");
        // Owner, group and time are 0, and so are the devices and the sum.
        let fields = [inode as usize, mode as usize, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_begin_at_multiples_of_four() {
        let mut archive = Initramfs::default();
        archive.directory("bin");
        archive.program("bin/a", b"text!");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000041ed"));
        let program = bytes.windows(5).position(|window| window == b"text!").expect("the content");
        assert_eq!(program % 4, 0);
        assert_eq!(&bytes[program + 8..program + 14], b"070701");
    }
}
