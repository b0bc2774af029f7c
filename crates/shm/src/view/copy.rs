//! Cutting a range of bytes into whole words and the parts of words at its ends.
//!
//! Pure arithmetic over slices; the accesses themselves are the view's, handed in.

/// Fills `out` with the bytes from `start` on. `load` fills whole words from an offset that is a multiple of `W`; it
/// is called once for each part of a word at the ends and once for all words between.
pub(super) fn gather<const W: usize>(start: usize, out: &mut [u8], load: impl Fn(usize, &mut [[u8; W]])) {
    let (head, rest) = out.split_at_mut(bytes_before_word::<W>(start, out.len()));
    let after_head = start + head.len();
    if !head.is_empty() {
        let within = start % W;
        let mut word = [[0; W]];
        load(start - within, &mut word);
        head.copy_from_slice(&word[0][within..within + head.len()]);
    }
    let (words, tail) = rest.as_chunks_mut::<W>();
    let after_words = after_head + words.len() * W;
    if !words.is_empty() {
        load(after_head, words);
    }
    if !tail.is_empty() {
        let mut word = [[0; W]];
        load(after_words, &mut word);
        tail.copy_from_slice(&word[0][..tail.len()]);
    }
}

/// Puts `bytes` at `start`. `store` takes whole words; `patch` takes a mask of the bytes to replace in one word, and
/// their values, zero elsewhere. Offsets given to both are multiples of `W`.
pub(super) fn scatter<const W: usize>(
    start: usize,
    bytes: &[u8],
    store: impl Fn(usize, &[[u8; W]]),
    patch: impl Fn(usize, [u8; W], [u8; W]),
) {
    let patch_at = |at: usize, part: &[u8]| {
        let within = at % W;
        let (mut mask, mut value) = ([0; W], [0; W]);
        mask[within..within + part.len()].fill(u8::MAX);
        value[within..within + part.len()].copy_from_slice(part);
        patch(at - within, mask, value);
    };
    let (head, rest) = bytes.split_at(bytes_before_word::<W>(start, bytes.len()));
    let after_head = start + head.len();
    if !head.is_empty() {
        patch_at(start, head);
    }
    let (words, tail) = rest.as_chunks::<W>();
    if !words.is_empty() {
        store(after_head, words);
    }
    if !tail.is_empty() {
        patch_at(after_head + words.len() * W, tail);
    }
}

/// How many of `len` bytes from `start` on lie before the first whole word.
fn bytes_before_word<const W: usize>(start: usize, len: usize) -> usize {
    start.next_multiple_of(W).saturating_sub(start).min(len)
}
