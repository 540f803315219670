//! "Did you mean …?"

/// The candidate that `word` is most likely a slip of, if any is close enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let word = plain(word.get(..word.len().min(64)).unwrap_or(""));
    candidates
        .into_iter()
        .map(|candidate| {
            let other = plain(candidate);
            let distance = distance(&word, &other);
            let prefix = word.len() >= 3 && (other.starts_with(&word) || word.starts_with(&other));
            (if prefix { distance.min(1) } else { distance }, candidate)
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let keys = [
            "replicas",
            "image",
            "ports",
            "depends_on",
            "env_file",
            "networks",
        ];
        let cases = [
            ("replica", Some("replicas")),
            ("imgae", Some("image")),
            ("dependsOn", Some("depends_on")),
            ("port", Some("ports")),
            ("env-file", Some("env_file")),
            ("network", Some("networks")),
            ("banana", None),
            ("", None),
        ];
        for (word, wanted) in cases {
            assert_eq!(nearest(word, keys), wanted, "{word}");
        }
    }
}
