//! Views against plain slices, and each way to misuse one.

use alloc::{sync::Arc, vec, vec::Vec};
use core::{ptr::NonNull, sync::atomic::Ordering};

use keyway_abi::layout::PAGE_BYTES;
use proptest::prelude::*;

use super::*;

const LEN_BYTES: usize = PAGE_BYTES + 256;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any range, also across the boundary between narrow and wide words, against plain slices.
    #[test]
    fn copies_are_what_slices_do(
        copies in prop::collection::vec((PAGE_BYTES - 40..LEN_BYTES + 8, 0..80_usize, any::<u8>()), 1..40),
    ) {
        let memory = heap::memory(LEN_BYTES);
        let mut model = vec![0; LEN_BYTES];
        for (offset, len, first) in copies {
            let bytes: Vec<u8> = (0..len).map(|at| first.wrapping_add(at as u8)).collect();
            let copied = memory.writer.copy_in(offset, &bytes);
            if let Some(place) = model.get_mut(offset..offset + len) {
                    prop_assert_eq!(copied, Ok(()));
                    place.copy_from_slice(&bytes);
                    let mut back = vec![0; len];
                    prop_assert_eq!(memory.reader.copy_out(offset, &mut back), Ok(()));
                    prop_assert_eq!(back, bytes);
            } else {
                    let refusal = OutOfView { offset, asked_bytes: len, len_bytes: LEN_BYTES };
                    prop_assert_eq!(copied, Err(refusal));
            }
        }
        let mut all = vec![0; LEN_BYTES];
        prop_assert_eq!(memory.reader.copy_out(0, &mut all), Ok(()));
        prop_assert_eq!(all, model);
    }

    /// Any range is told whole and in order, in pieces that are no longer than a line.
    #[test]
    fn lines_are_what_a_copy_is(offset in 0..LEN_BYTES + 8, len in 0..LEN_BYTES) {
        let memory = heap::memory(LEN_BYTES);
        let bytes: Vec<u8> = (0..LEN_BYTES).map(|at| (at % 251) as u8).collect();
        prop_assert_eq!(memory.writer.copy_in(0, &bytes), Ok(()));
        let mut read = Vec::new();
        let told = memory.reader.read_lines(offset, len, |line| {
            assert!(!line.is_empty() && line.len() <= LINE_BYTES);
            read.extend_from_slice(line);
        });
        if offset + len <= LEN_BYTES {
            prop_assert_eq!(told, Ok(()));
            prop_assert_eq!(&read[..], &bytes[offset..offset + len]);
        } else {
            prop_assert_eq!(told, Err(OutOfView { offset, asked_bytes: len, len_bytes: LEN_BYTES }));
            prop_assert!(read.is_empty());
        }
    }
}

/// Where whole lines can be loaded they are, and nowhere else: what is before the first and behind the last comes in at most two
/// pieces and one.
#[test]
fn lines_are_whole_where_they_can_be() {
    let len_bytes = PAGE_BYTES + 3 * LINE_BYTES + 24;
    let memory = heap::memory(len_bytes);
    let bytes: Vec<u8> = (0..len_bytes).map(|at| (at * 7 % 251) as u8).collect();
    memory.writer.copy_in(0, &bytes).unwrap();
    let ends =
        [len_bytes, len_bytes - 1, PAGE_BYTES + LINE_BYTES, PAGE_BYTES + 2 * LINE_BYTES + 3, PAGE_BYTES + 5];
    for offset in PAGE_BYTES - 20..PAGE_BYTES + 20 {
        for end in ends.into_iter().filter(|end| offset < *end) {
            let (mut read, mut pieces) = (Vec::new(), Vec::new());
            let told = memory.reader.read_lines(offset, end - offset, |line| {
                read.extend_from_slice(line);
                pieces.push(line.len());
            });
            assert_eq!(told, Ok(()));
            assert!(read == bytes[offset..end], "{offset}..{end}");
            // From the first place where a whole line can be loaded.
            let wide = offset.max(PAGE_BYTES).next_multiple_of(8).min(end);
            let lines = (end - wide) / LINE_BYTES;
            assert_eq!(
                pieces.iter().filter(|len| **len == LINE_BYTES).count(),
                lines,
                "{offset}..{end}: {pieces:?}"
            );
            assert!(pieces.len() <= lines + 3, "{offset}..{end}: {pieces:?}");
        }
    }
}

#[test]
fn the_words_of_ones_own_memory_end_with_its_first_page() {
    let memory = heap::memory(LEN_BYTES);
    let own = Own::of(memory.writer.clone());
    assert_eq!((own.view().len_bytes(), own.all().len_bytes()), (PAGE_BYTES, LEN_BYTES));
    assert!(own.view().copy_in(PAGE_BYTES, b"record").is_err(), "records are written by whoever has them");
}

#[test]
fn what_is_lent_in_place_ends_with_the_ring() {
    let memory = heap::memory(PAGE_BYTES + 128);
    let records = Records::new(&memory.writer, 128).expect("a ring");
    let mut own = OwnRecords::new(records).expect("its writer");
    for (position, fits) in [(0, 128), (8, 120), (120, 8), (128, 128), (256 + 64, 64)] {
        for (len, is_one_piece) in [(fits, true), (fits + 1, false), (fits + 8, false), (fits - 1, true)] {
            assert_eq!(own.slice(position, len).is_some(), is_one_piece, "{len} bytes from {position}");
            assert_eq!(own.slice_mut(position, len).is_some(), is_one_piece, "{len} bytes from {position}");
        }
    }
}

#[test]
fn a_range_that_overflows_is_out_of_view() {
    let memory = heap::memory(64);
    let refusal = OutOfView { offset: usize::MAX, asked_bytes: 2, len_bytes: 64 };
    assert_eq!(memory.reader.copy_out(usize::MAX, &mut [0; 2]), Err(refusal));
    assert_eq!(memory.reader.copy_out(64, &mut []), Ok(()));
    assert!(memory.reader.copy_out(65, &mut []).is_err());
}

#[test]
fn words_lie_in_the_first_page_at_multiples_of_four() {
    let memory = heap::memory(LEN_BYTES);
    for (offset, is_word) in [
        (0, true),
        (4, true),
        (PAGE_BYTES - 4, true),
        (2, false),
        (PAGE_BYTES, false),
        (usize::MAX - 3, false),
    ] {
        assert_eq!(memory.reader.word(offset).is_some(), is_word, "offset {offset}");
    }
    assert!(heap::memory(8).reader.word(8).is_none());
}

#[test]
fn a_word_is_what_copies_see() {
    let memory = heap::memory(LEN_BYTES);
    let word = memory.writer.word(12).expect("a word");
    word.store(0x0102_0304, Ordering::Release);
    assert_eq!(memory.reader.load_u32(12, Ordering::Acquire), 0x0102_0304);
    let mut bytes = [0; 4];
    memory.reader.copy_out(12, &mut bytes).expect("inside");
    assert_eq!(bytes, 0x0102_0304_u32.to_ne_bytes());
    assert_eq!((word.access(), memory.reader.access()), (Access::Write, Access::Read));
}

#[test]
fn neighbouring_bytes_written_by_two_threads_both_stay() {
    let memory = heap::memory(LEN_BYTES);
    let (left, right) = (memory.writer.clone(), memory.writer.clone());
    std::thread::scope(|scope| {
        for (view, at) in [(left, 0), (right, 1)] {
            scope.spawn(move || {
                for round in 0..20_000_u32 {
                    for base in [64, PAGE_BYTES + 64] {
                        view.copy_in(base + at, &[round as u8]).expect("inside");
                        let mut back = [0];
                        view.copy_out(base + at, &mut back).expect("inside");
                        assert_eq!(back[0], round as u8);
                    }
                }
            });
        }
    });
}

#[test]
#[should_panic(expected = "INVARIANT store-needs-write")]
fn a_store_through_a_reading_view_is_a_named_bug() {
    heap::memory(64).reader.store_u32(0, 1, Ordering::Relaxed);
}

#[test]
#[should_panic(expected = "INVARIANT store-needs-write")]
fn a_copy_into_a_reading_view_is_a_named_bug() {
    let _ = heap::memory(64).reader.copy_in(0, &[1]);
}

#[test]
#[should_panic(expected = "INVARIANT narrow-in-view")]
fn a_word_outside_the_view_is_a_named_bug() {
    heap::memory(64).reader.load_u32(64, Ordering::Relaxed);
}

#[test]
fn misaligned_memory_makes_no_view() {
    let keep = Arc::new([0_u64; 4]);
    let base = NonNull::from(&*keep).cast::<u8>();
    for (skip, len_bytes, is_view) in [(0, 32, true), (4, 24, false), (0, 12, false), (8, 24, true)] {
        // SAFETY: `skip` stays inside the array (check: the table above).
        #[allow(unsafe_code)]
        let start = unsafe { base.add(skip) };
        // SAFETY: the array holds `skip + len_bytes` bytes and lives in `keep` (check: the table above); nobody writes.
        #[allow(unsafe_code)]
        let view = unsafe { View::new(start, len_bytes, Access::Read, keep.clone()) };
        assert_eq!(view.is_some(), is_view, "{len_bytes} bytes, {skip} after an aligned address");
    }
}
