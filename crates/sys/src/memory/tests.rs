//! What Linux refuses once a memory is sealed, and what the checks find.

use std::{os::fd::AsRawFd, sync::atomic::Ordering};

use super::*;

const BYTES: usize = 8192;

/// A memory of the use given, mapped by its writer and sealed.
fn sealed(sealed_for: SealUse) -> (OwnedFd, Mapping) {
    let fd = create_memory("test", BYTES).unwrap();
    let writer = Mapping::new(&fd, BYTES, Access::Write, Populate::Now).unwrap();
    seal(&fd, sealed_for).unwrap();
    (fd, writer)
}

/// Opens the memory anew for reading and writing, as a reader of the same uid could: it changes the mode back first.
fn reopen_for_writing(fd: &OwnedFd) -> OwnedFd {
    fs::fchmod(fd, Mode::RUSR | Mode::WUSR).unwrap();
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn refusal(result: Result<Mapping, MapError>) -> Errno {
    match result {
        Err(MapError::Refused(error)) => error.errno,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_writer_goes_on_writing_and_the_reader_sees_it() {
    let (fd, writer) = sealed(SealUse::Lane);
    let reader = Mapping::new(reopen_read_only(&fd).unwrap(), BYTES, Access::Read, Populate::OnUse).unwrap();
    assert_eq!(reader.len_bytes(), BYTES);
    let (written, read) = (writer.view(), reader.view());
    written.copy_in(4096, b"a record").unwrap();
    written.word(0).unwrap().store(77, Ordering::Release);
    assert_eq!(read.word(0).unwrap().load(Ordering::Acquire), 77);
    let mut copy = [0; 8];
    read.copy_out(4096, &mut copy).unwrap();
    assert_eq!(&copy, b"a record");
}

#[test]
fn a_second_writer_is_refused_by_every_way() {
    let (fd, writer) = sealed(SealUse::Lane);
    assert_eq!(refusal(Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse)), Errno::PERM);
    assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
    assert_eq!(fs::ftruncate(&fd, 0), Err(Errno::PERM));
    assert_eq!(fs::ftruncate(&fd, 2 * BYTES as u64), Err(Errno::PERM));
    let hole = fs::FallocateFlags::PUNCH_HOLE | fs::FallocateFlags::KEEP_SIZE;
    assert_eq!(fs::fallocate(&fd, hole, 0, 4096), Err(Errno::PERM));

    let again = reopen_for_writing(&fd);
    assert_eq!(refusal(Mapping::new(&again, BYTES, Access::Write, Populate::OnUse)), Errno::PERM);
    assert_eq!(rustix::io::pwrite(&again, b"x", 0), Err(Errno::PERM));

    let reader = reopen_read_only(&fd).unwrap();
    assert_eq!(refusal(Mapping::new(&reader, BYTES, Access::Write, Populate::OnUse)), Errno::ACCESS);
    assert_eq!(rustix::io::pwrite(&reader, b"x", 0), Err(Errno::BADF));
    assert_eq!(writer.view().word(0).unwrap().load(Ordering::Relaxed), 0);
}

#[test]
fn without_the_seal_all_of_that_works() {
    let fd = create_memory("test", BYTES).unwrap();
    let _writer = Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse).unwrap();
    Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse).unwrap();
    assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Ok(1), "the mode 0400 does not bind the descriptor in hand");
    let hole = fs::FallocateFlags::PUNCH_HOLE | fs::FallocateFlags::KEEP_SIZE;
    assert_eq!(fs::fallocate(&fd, hole, 0, 4096), Ok(()));
}

#[test]
fn a_mapping_to_read_cannot_be_made_writable() {
    let (fd, _writer) = sealed(SealUse::LiveRegion);
    // Both by a descriptor that only reads and by the one that made the memory.
    for fd in [reopen_read_only(&fd).unwrap(), fd] {
        let reader = Mapping::new(&fd, BYTES, Access::Read, Populate::Now).unwrap();
        let base = reader.addresses.base.as_ptr().cast();
        let flags = mm::MprotectFlags::READ | mm::MprotectFlags::WRITE;
        // SAFETY: the range is the reader's mapping, in which nothing else lives.
        let answer = unsafe { mm::mprotect(base, BYTES, flags) };
        assert_eq!(answer, Err(Errno::ACCESS));
    }
}

#[test]
fn no_seal_can_be_added_after_the_last() {
    let (fd, _writer) = sealed(SealUse::Lane);
    assert_eq!(fs::fcntl_add_seals(&fd, Seals::WRITE), Err(Errno::PERM));
    seal(&fd, SealUse::Lane).unwrap();
    let (fd, _writer) = sealed(SealUse::SharedRegion);
    assert_eq!(seal(&fd, SealUse::Lane).unwrap_err().errno, Errno::PERM);
    Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse).unwrap();
}

#[test]
fn a_descriptor_that_only_reads_cannot_seal() {
    let fd = create_memory("test", BYTES).unwrap();
    let reader = reopen_read_only(&fd).unwrap();
    assert_eq!(seal(&reader, SealUse::Lane).unwrap_err().errno, Errno::PERM);
}

#[test]
fn the_seals_of_each_use_are_found_as_expected() {
    let uses = [
        SealUse::Lane,
        SealUse::Acknowledgement,
        SealUse::BrokerPage,
        SealUse::LiveRegion,
        SealUse::FreezableRegion,
        SealUse::SharedRegion,
    ];
    for sealed_for in uses {
        let (fd, _writer) = sealed(sealed_for);
        assert_eq!(check_seals(&fd, sealed_for, BYTES).unwrap(), SealCheck::AsExpected, "{sealed_for:?}");
        let longer = check_seals(&fd, sealed_for, BYTES + 1).unwrap();
        assert!(matches!(longer, SealCheck::Size { found_bytes: 8192, expected_bytes: 8193 }));
    }
}

#[test]
fn missing_and_added_seals_are_found() {
    let (fd, _writer) = sealed(SealUse::FreezableRegion);
    let SealCheck::Seals { found, expected } = check_seals(&fd, SealUse::LiveRegion, BYTES).unwrap() else {
        panic!("a seal is missing");
    };
    assert_eq!(expected - found, Seals::SEAL);
    fs::fcntl_add_seals(reopen_for_writing(&fd), Seals::SEAL).unwrap();
    let added = check_seals(&fd, SealUse::FreezableRegion, BYTES).unwrap();
    assert!(matches!(added, SealCheck::Seals { .. }), "{added:?}");
    let (pipe, _other) = std::io::pipe().unwrap();
    assert_eq!(check_seals(&pipe, SealUse::Lane, 0).unwrap(), SealCheck::NotSealable);
}

#[test]
fn a_region_that_is_not_populated_is_found() {
    let fd = create_memory("test", BYTES).unwrap();
    let writer = Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse).unwrap();
    writer.view().word(0).unwrap().store(1, Ordering::Relaxed);
    seal(&fd, SealUse::LiveRegion).unwrap();
    let answer = check_seals(&fd, SealUse::LiveRegion, BYTES).unwrap();
    assert_eq!(answer, SealCheck::Unpopulated { found_bytes: 4096, expected_bytes: 8192 });
    assert_eq!(check_seals(&fd, SealUse::Lane, BYTES).unwrap(), SealCheck::AsExpected);
}

#[test]
fn freezing_waits_for_the_writer_and_is_for_good() {
    let (fd, writer) = sealed(SealUse::FreezableRegion);
    assert_eq!(freeze(&fd).unwrap(), Freeze::Pinned);
    let view = writer.view();
    drop(writer);
    assert_eq!(freeze(&fd).unwrap(), Freeze::Pinned, "a view keeps the mapping");
    drop(view);
    assert_eq!(freeze(&fd).unwrap(), Freeze::Frozen);
    assert_eq!(check_seals(&fd, SealUse::FrozenRegion, BYTES).unwrap(), SealCheck::AsExpected);
    assert_eq!(freeze(&fd).unwrap(), Freeze::SealedByOther);
}

#[test]
fn what_could_be_truncated_is_not_mapped() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = fs::memfd_create("test", flags).unwrap();
    fs::ftruncate(&fd, BYTES as u64).unwrap();
    let open = Mapping::new(&fd, BYTES, Access::Read, Populate::OnUse);
    assert_eq!(open.unwrap_err(), MapError::Unsealed);
    fs::fcntl_add_seals(&fd, Seals::SHRINK | Seals::GROW).unwrap();
    Mapping::new(&fd, BYTES, Access::Read, Populate::OnUse).unwrap();
    let longer = Mapping::new(&fd, BYTES + 4096, Access::Read, Populate::OnUse);
    assert!(matches!(longer, Err(MapError::Size { found_bytes: 8192, asked_bytes: 12288 })));
    let uneven = create_memory("test", 4100).unwrap();
    let uneven = Mapping::new(&uneven, 4100, Access::Read, Populate::OnUse);
    assert_eq!(uneven.unwrap_err(), MapError::Uneven { asked_bytes: 4100 });
    let empty = create_memory("test", 0).unwrap();
    let empty = Mapping::new(&empty, 0, Access::Read, Populate::OnUse);
    assert!(matches!(empty, Err(MapError::Size { .. })));
}

#[test]
fn the_last_drop_unmaps() {
    let fd = create_memory("keyway-unmapped", BYTES).unwrap();
    let is_mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("memfd:keyway-unmapped");
    let mapping = Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse).unwrap();
    let view = mapping.clone().view();
    drop(mapping);
    assert!(is_mapped());
    drop(view);
    assert!(!is_mapped());
}

#[test]
fn a_writers_mapping_is_not_forked_and_nothing_is_executable() {
    let fd = create_memory("keyway-dontfork", BYTES).unwrap();
    let _mapping = Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse).unwrap();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_ours = maps.split_once("memfd:keyway-dontfork").unwrap().1;
    let flags = of_ours.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.contains(" dc "), "{flags}");
    assert_eq!(fs::fchmod(&fd, Mode::RWXU), Err(Errno::PERM));
    assert_eq!(fs::fstat(&fd).unwrap().st_mode & 0o777, 0o400);
    // Root may open whatever it likes.
    if !rustix::process::geteuid().is_root() {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert_eq!(fs::open(path, OFlags::RDWR, Mode::empty()).unwrap_err(), Errno::ACCESS);
    }
}

/// A freezable memory that holds some bytes, whose writer has unmapped it.
fn written() -> OwnedFd {
    let (fd, writer) = sealed(SealUse::FreezableRegion);
    writer.view().copy_in(0, b"for good").unwrap();
    fd
}

#[test]
fn a_frozen_memory_is_read_as_bytes_and_changed_by_no_way() {
    let fd = written();
    let reader = reopen_read_only(&fd).unwrap();
    assert!(matches!(FrozenBytes::map(&reader, BYTES, 0), Err(MapError::NotFrozen)));
    assert_eq!(freeze(&fd), Ok(Freeze::Frozen));
    assert_eq!(check_seals(&fd, SealUse::FrozenRegion, BYTES), Ok(SealCheck::AsExpected));
    let frozen = FrozenBytes::map(&reader, BYTES, 0).unwrap();
    assert_eq!((&frozen[..8], frozen.len()), (&b"for good"[..], BYTES));
    for fd in [&fd, &reopen_for_writing(&fd)] {
        assert_eq!(refusal(Mapping::new(fd, BYTES, Access::Write, Populate::OnUse)), Errno::PERM);
        assert_eq!(rustix::io::pwrite(fd, b"x", 0), Err(Errno::PERM));
        assert_eq!(fs::ftruncate(fd, 0), Err(Errno::PERM));
        for mode in [fs::FallocateFlags::PUNCH_HOLE, fs::FallocateFlags::ZERO_RANGE] {
            let done = fs::fallocate(fd, mode | fs::FallocateFlags::KEEP_SIZE, 0, 4096);
            assert!(matches!(done, Err(Errno::PERM | Errno::OPNOTSUPP)), "{done:?}");
        }
    }
    // Not even by changing the protection of a mapping that is there.
    let mapped = Mapping::new(&reader, BYTES, Access::Read, Populate::OnUse).unwrap();
    let base = mapped.address() as *mut core::ffi::c_void;
    // SAFETY: the range is the mapping above; were it granted, nothing would be written through it.
    let granted = unsafe { mm::mprotect(base, BYTES, mm::MprotectFlags::READ | mm::MprotectFlags::WRITE) };
    assert_eq!(granted, Err(Errno::ACCESS));
    assert_eq!(&frozen[..8], b"for good");
}

#[test]
fn a_memory_that_somebody_can_write_is_not_frozen() {
    let (fd, writer) = sealed(SealUse::FreezableRegion);
    assert_eq!(freeze(&fd), Ok(Freeze::Pinned));
    drop(writer);
    assert_eq!(freeze(&fd), Ok(Freeze::Frozen));
    let fd = written();
    add_seals(reopen_for_writing(&fd), Seals::SEAL).unwrap();
    assert_eq!(freeze(&fd), Ok(Freeze::SealedByOther));
}

#[test]
fn a_copy_is_changed_by_its_holder_and_seen_by_nobody_else() {
    let fd = written();
    freeze(&fd).unwrap();
    let reader = reopen_read_only(&fd).unwrap();
    let mut copy = CopiedBytes::map(&reader, BYTES, 0).unwrap();
    let other = CopiedBytes::map(&reader, BYTES, 0).unwrap();
    copy[..3].copy_from_slice(b"two");
    assert_eq!((&copy[..8], &other[..8]), (&b"two good"[..], &b"for good"[..]));
    assert_eq!(&FrozenBytes::map(&reader, BYTES, 0).unwrap()[..8], b"for good");
}

#[test]
fn a_copy_of_live_memory_follows_its_writer_until_it_is_written() {
    let (fd, writer) = sealed(SealUse::LiveRegion);
    let reader = reopen_read_only(&fd).unwrap();
    let copy = Mapping::copy_on_write(&reader, BYTES, 0).unwrap().view();
    let read = |view: &View, offset| {
        let mut out = [0; 4];
        view.copy_out(offset, &mut out).unwrap();
        out
    };
    copy.copy_in(0, b"mine").unwrap();
    writer.view().copy_in(0, b"late").unwrap();
    writer.view().copy_in(4096, b"late").unwrap();
    assert_eq!((read(&copy, 0), read(&copy, 4096)), (*b"mine", *b"late"));
    assert_eq!(read(&writer.view(), 0), *b"late", "nobody else sees what a copy holds");
}

#[test]
fn a_wish_for_an_address_is_met_where_there_is_room() {
    let (fd, _writer) = sealed(SealUse::LiveRegion);
    let reader = reopen_read_only(&fd).unwrap();
    let anywhere = Mapping::new(&reader, BYTES, Access::Read, Populate::OnUse).unwrap();
    let wish = anywhere.address();
    let beside = Mapping::near(&reader, BYTES, Access::Read, Populate::OnUse, wish).unwrap();
    assert_ne!(beside.address(), wish, "what is there is not replaced");
    drop(anywhere);
    let there = Mapping::near(&reader, BYTES, Access::Read, Populate::OnUse, wish).unwrap();
    assert_eq!(there.address(), wish);
}

#[test]
fn memory_of_huge_pages_is_to_be_had_or_is_of_ordinary_ones() {
    let bytes = 2 << 20;
    let fd = create_memory_of("test", bytes, PageSize::HugeIfAny).unwrap();
    let writer = Mapping::new(&fd, bytes, Access::Write, Populate::Now).unwrap();
    seal(&fd, SealUse::LiveRegion).unwrap();
    assert_eq!(check_seals(&fd, SealUse::LiveRegion, bytes), Ok(SealCheck::AsExpected));
    writer.view().copy_in(bytes - 4, b"last").unwrap();
}
