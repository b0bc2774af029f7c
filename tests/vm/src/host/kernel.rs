//! The kernel: its ELF out of what boot loaders load, and its modules in the order in which they load.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

/// A kernel as its package lays it out, in `boot` and `lib/modules`.
pub struct Kernel {
    directory: PathBuf,
    version: String,
}

impl Kernel {
    pub fn find(directory: &Path) -> Result<Self> {
        let modules = directory.join("lib/modules");
        let mut versions = fs::read_dir(&modules).with_context(|| format!("no {}", modules.display()))?;
        let version = versions.next().context("no kernel's modules")??.file_name();
        Ok(Kernel { directory: directory.into(), version: version.to_string_lossy().into_owned() })
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// The kernel's ELF. An emulated machine would take seconds to decompress it, so that is done once, here.
    pub fn elf(&self) -> Result<PathBuf> {
        let elf = self.directory.join("vmlinux");
        if !elf.exists() {
            let image = fs::read(self.directory.join("boot").join(format!("vmlinuz-{}", self.version)))?;
            let bytes = decompress(payload(&image)?)?;
            ensure!(bytes.starts_with(b"\x7fELF"), "what is compressed in the kernel's image is no ELF");
            // Whole or not at all, also for somebody who does the same at this moment.
            let unfinished = elf.with_extension(std::process::id().to_string());
            fs::write(&unfinished, bytes)?;
            fs::rename(unfinished, &elf)?;
        }
        Ok(elf)
    }

    /// The modules and all they need, decompressed, each after what it needs. What is built in is left out.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let directory = self.directory.join("lib/modules").join(&self.version);
        let dependencies = fs::read_to_string(directory.join("modules.dep"))?;
        let dependencies: HashMap<String, (&str, &str)> = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (module_name(path), (path, needs)))
            .collect();
        let builtin = fs::read_to_string(directory.join("modules.builtin"))?;
        let builtin: Vec<String> = builtin.lines().map(module_name).collect();
        let mut paths: Vec<&str> = Vec::new();
        for name in wanted {
            let Some((path, needs)) = dependencies.get(*name) else {
                ensure!(builtin.iter().any(|built| built == name), "the kernel has no module {name}");
                continue;
            };
            // What is needed first stands last.
            for path in needs.split_whitespace().rev().chain([*path]) {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        let read = |path: &str| Ok((module_name(path), decompress(&fs::read(directory.join(path))?)?));
        paths.into_iter().map(read).collect()
    }
}

/// `kernel/drivers/gpu/drm/virtio/virtio-gpu.ko.xz` is `virtio_gpu`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The compressed ELF in a bzImage, as the header of the boot protocol says where it is (2.08 and newer).
fn payload(image: &[u8]) -> Result<&[u8]> {
    let byte = |at: usize| image.get(at).copied().context("the kernel's image ends too early");
    let number = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("the kernel's image ends too early")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    ensure!(image.get(0x202..0x206) == Some(b"HdrS".as_slice()), "the kernel's image is no bzImage");
    let setup_sectors = usize::from(byte(0x1f1)?);
    let begin = (setup_sectors + 1) * 512 + number(0x248)?;
    image.get(begin..begin + number(0x24c)?).context("the kernel's image ends too early")
}

/// Decompresses what xz, zstd or gzip have compressed, and leaves an ELF as it is. Only the first stream is read: after the
/// kernel's stand four bytes that belong to none.
fn decompress(bytes: &[u8]) -> Result<Vec<u8>> {
    let (command, bytes) = match bytes {
        [0x7f, b'E', b'L', b'F', ..] => return Ok(bytes.to_vec()),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => (["xz", "-dc", "--single-stream"].as_slice(), bytes),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => (["zstd", "-dc", "--quiet"].as_slice(), bytes),
        [0x1f, 0x8b, ..] => (["gzip", "-dc", "--quiet"].as_slice(), bytes),
        _ => bail!("compressed by something else than xz, zstd or gzip"),
    };
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("no {}", command[0]))?;
    let mut input = child.stdin.take().context("no way to the decompressor")?;
    let output = thread::scope(|scope| {
        // It may stop reading at the end of the stream.
        scope.spawn(move || input.write_all(bytes).ok());
        child.wait_with_output()
    })?;
    // zstd and gzip complain of the four bytes, after they have written all there is.
    ensure!(!output.stdout.is_empty(), "{} does not decompress it", command[0]);
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_as_the_kernel_names_them() {
        assert_eq!(module_name("kernel/drivers/gpu/drm/virtio/virtio-gpu.ko.xz"), "virtio_gpu");
        assert_eq!(module_name("kernel/drivers/input/evdev.ko"), "evdev");
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 2048];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        image[0x248] = 16;
        image[0x24c] = 3;
        image[1040..1043].copy_from_slice(b"elf");
        assert_eq!(payload(&image).ok(), Some(b"elf".as_slice()));
        assert!(payload(&image[..1041]).is_err());
        assert!(payload(&[0; 2048]).is_err());
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        assert!(decompress(b"text").is_err());
        assert_eq!(decompress(b"\x7fELF and so on").ok(), Some(b"\x7fELF and so on".to_vec()));
    }
}
