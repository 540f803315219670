//! Every parser that faces the outside, with the kept corpus and seeded mutations of it: no panic,
//! no hang, no growth. `FUZZ_MUTATIONS` and `FUZZ_SEED` make it longer and other; with `FUZZ_TRACE`
//! each input is written down before it is tried, for those that end the process.

#![allow(clippy::unwrap_used)] // all of it is tests

#[path = "../../fuzz/src/lib.rs"]
#[allow(
    dead_code,
    reason = "libFuzzer's programs call the functions one by one"
)]
mod targets;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use targets::{TARGETS, Target};

/// What the system gives, counted.
struct Counted;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came, with its contract; the
// counters are plain numbers.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What one input may take at once. Parsers of real inputs of this size take a tenth.
const MOST_MEMORY: usize = 64 << 20;
/// What may be left when all inputs have been tried twice: caches that fill once.
const MOST_LEFT: usize = 4 << 20;
/// How long one input may take, on a machine that does other things.
const MOST_TIME: Duration = Duration::from_secs(20);
/// As tokio's workers have it: what needs more there ends the daemon.
const STACK: usize = 2 << 20;
/// Mutations grow no further.
const LONGEST: usize = 64 << 10;

/// The counters are of the process, so that one target runs at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// xorshift64*: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }
}

/// One to eight small changes.
fn mutate(chance: &mut Chance, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut input = corpus[chance.below(corpus.len())].clone();
    for _ in 0..=chance.below(8) {
        let (at, length) = (chance.below(input.len() + 1), input.len());
        match chance.below(9) {
            0 if length > 0 => input[at.min(length - 1)] ^= 1 << chance.below(8),
            1 if length > 0 => input[at.min(length - 1)] = chance.next() as u8,
            2 => input.truncate(at),
            3 => {
                let end = (at + chance.below(16)).min(length);
                input.drain(at..end);
            }
            // A part once more, or many times.
            4 => {
                let part = input[at..(at + chance.below(64)).min(length)].to_vec();
                let times = if chance.below(8) == 0 { 200 } else { 1 };
                input.splice(at..at, part.repeat(times));
            }
            // Another's end on this one's beginning.
            5 => {
                let other = &corpus[chance.below(corpus.len())];
                let from = chance.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 => {
                let byte = [0, 0x7f, 0x80, 0xff][chance.below(4)];
                input.splice(at..at, std::iter::repeat_n(byte, chance.below(9)));
            }
            _ if !words.is_empty() => {
                let word = words[chance.below(words.len())];
                let times = if chance.below(16) == 0 { 500 } else { 1 };
                input.splice(at..at, word.repeat(times).bytes());
            }
            _ => {}
        }
        input.truncate(LONGEST);
    }
    input
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let folder = folder.join(target.name);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 2, "{} is nearly empty", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Where an input is kept that has found something.
fn keep(target: &Target, input: &[u8], what: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("fuzz-{}-{what}", target.name));
    fs::write(&path, input).unwrap();
    format!("{}: {what}, see {}", target.name, path.display())
}

/// Tries inputs in a thread of its own and says what the last one has done wrong.
fn try_all(target: &'static Target, inputs: impl Iterator<Item = Vec<u8>> + Send + 'static) {
    let (begun, begin) = mpsc::channel::<Option<Vec<u8>>>();
    let trace = std::env::var_os("FUZZ_TRACE").is_some();
    let worker = thread::Builder::new().stack_size(STACK).spawn(move || {
        for input in inputs {
            begun.send(Some(input.clone())).unwrap();
            if trace {
                keep(target, &input, "traced");
            }
            let before = LIVE.load(Relaxed);
            PEAK.store(before, Relaxed);
            let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            assert!(ended.is_ok(), "{}", keep(target, &input, "panic"));
            let taken = PEAK.load(Relaxed).saturating_sub(before);
            let kept = || keep(target, &input, "memory");
            assert!(taken <= MOST_MEMORY, "{} ({} MiB)", kept(), taken >> 20);
            begun.send(None).unwrap();
        }
    });
    let worker = worker.unwrap();
    let mut current = None;
    loop {
        match begin.recv_timeout(MOST_TIME) {
            Ok(input) => current = input,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let input = current.take().unwrap_or_default();
                panic!("{}", keep(target, &input, "hang"));
            }
        }
    }
    if let Err(cause) = worker.join() {
        std::panic::resume_unwind(cause);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn replay(name: &str) {
    let _turn = turn();
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let kept = corpus(target);
    try_all(target, kept.clone().into_iter());
    let settled = LIVE.load(Relaxed);
    let count = number("FUZZ_MUTATIONS").unwrap_or(if target.slow { 150 } else { 2_000 });
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let words = target.words;
    let own = kept.clone();
    let mutated = (0..count).map(move |_| mutate(&mut chance, &own, words));
    try_all(target, mutated);
    try_all(target, kept.into_iter());
    let left = LIVE.load(Relaxed).saturating_sub(settled);
    assert!(
        left < MOST_LEFT,
        "{name}: {left} bytes are kept for nothing"
    );
}

macro_rules! each {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn each_target_has_its_test() {
            let tested = [$(stringify!($name)),*];
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, tested);
        }
    };
}

each!(
    container,
    body,
    query,
    words,
    layer,
    log,
    compose,
    dotenv,
    frames,
    dns,
    cni,
    template,
    certificate,
);

/// The harness sees what it is for.
mod harness {
    use super::*;

    fn target(run: fn(&[u8])) -> &'static Target {
        Box::leak(Box::new(Target {
            name: "harness",
            run,
            words: &["x"],
            slow: false,
        }))
    }

    fn found(run: fn(&[u8]), input: &[u8]) -> String {
        let _turn = turn();
        let input = input.to_vec();
        let tried = catch_unwind(|| try_all(target(run), std::iter::once(input)));
        let Err(cause) = tried else {
            return String::new();
        };
        cause.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn panics_and_growth_are_seen() {
        assert_eq!(found(|_| {}, b"a"), "");
        assert!(found(|data| assert!(data != b"a"), b"a").contains("panic"));
        let greedy = |_: &[u8]| drop(std::hint::black_box(vec![1_u8; MOST_MEMORY + 1]));
        assert!(found(greedy, b"a").contains("memory"));
    }

    #[test]
    fn mutations_differ_and_repeat_themselves() {
        let corpus = [b"hello".to_vec(), b"world".to_vec()];
        let run = |seed| {
            let mut chance = Chance(seed);
            let inputs = (0..200).map(|_| mutate(&mut chance, &corpus, &["word"]));
            inputs.collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        let different: std::collections::BTreeSet<_> = run(1).into_iter().collect();
        assert!(different.len() > 150, "{}", different.len());
    }
}
