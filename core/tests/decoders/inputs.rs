//! Inputs: what stands in a corpus, that with a few bytes changed, and noise.

use std::path::Path;

/// How many a decoder has to stand at least.
pub(crate) const INPUTS: usize = 100_000;

/// A seeded generator (splitmix64).
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }
}

/// Calls `property` with so many inputs; which one failed is printed.
pub(crate) fn try_inputs(target: &str, inputs: usize, property: fn(&[u8])) {
    struct Failed(Vec<u8>);
    impl Drop for Failed {
        #[expect(clippy::print_stdout, reason = "the test's own words, where it fails")]
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("the input was \"{}\"", self.0.escape_ascii());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root
        .ancestors()
        .find(|dir| dir.join("fuzz").is_dir())
        .unwrap();
    let corpus: Vec<Vec<u8>> = std::fs::read_dir(root.join("fuzz/corpus").join(target))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(corpus.len() > 3, "{target} has a corpus");
    let words: Vec<&[u8]> = corpus
        .iter()
        .flat_map(|input| input.split(|byte| b":/?@=,.&".contains(byte)))
        .collect();
    let mut seed = Seed(1);
    for number in 0..inputs {
        let mut input = match corpus.get(number) {
            Some(input) => input.clone(),
            None if seed.below(4) == 0 => {
                let len = seed.below(80);
                (0..len).map(|_| seed.next().to_le_bytes()[0]).collect()
            }
            None => corpus[seed.below(corpus.len())].clone(),
        };
        if number >= corpus.len() {
            for _ in 0..=seed.below(4) {
                change(&mut input, &words, &mut seed);
            }
        }
        let input = Failed(input);
        property(&input.0);
    }
}

fn change(input: &mut Vec<u8>, words: &[&[u8]], seed: &mut Seed) {
    let at = seed.below(input.len() + 1);
    match seed.below(6) {
        0 => input.truncate(at),
        1 => input.insert(at, seed.next().to_le_bytes()[0]),
        2 if at < input.len() => input[at] ^= 1 << seed.below(8),
        3 if at < input.len() => {
            input.remove(at);
        }
        4 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'%', b':'][seed.below(7)],
        _ => {
            let word = words[seed.below(words.len())];
            input.splice(at..at, word.iter().copied());
        }
    }
}
