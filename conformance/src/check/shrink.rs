//! The smallest script that still fails.

/// Takes away from a script what it does not need to fail: delta debugging.
///
/// `fails` says whether a script fails; it must say the same of the same script each time. The
/// result fails, if the script did, and does not once any one more step is taken away (the steps
/// keep their order). A script that does not fail comes back as it is. Tries O(n log n) scripts for
/// the few steps that matter, O(n²) at worst.
pub fn shrink<T: Clone>(script: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut rest = script.to_vec();
    if !fails(&rest) {
        return rest;
    }
    let mut chunk = rest.len().div_ceil(2);
    while chunk > 0 {
        let mut shrunk = false;
        let mut from = 0;
        while from < rest.len() {
            let without: Vec<T> = rest
                .iter()
                .enumerate()
                .filter(|(place, _)| !(from..from + chunk).contains(place))
                .map(|(_, step)| step.clone())
                .collect();
            if fails(&without) {
                rest = without;
                shrunk = true;
            } else {
                from += chunk;
            }
        }
        // A step may be needed by one that went since: once more, until nothing goes.
        if chunk > 1 {
            chunk = chunk.div_ceil(2);
        } else if !shrunk {
            break;
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let script: Vec<u32> = (0..1_000).collect();
        let mut tried = 0;
        let small = shrink(&script, |script| {
            tried += 1;
            [17, 400, 999].iter().all(|step| script.contains(step))
        });
        assert_eq!(small, [17, 400, 999]);
        assert!(tried < 200, "{tried}");
    }

    #[test]
    fn what_went_may_free_another() {
        // 1 is needed while 2 is there.
        let fails = |s: &[u32]| s.contains(&0) && (s.contains(&1) || !s.contains(&2));
        assert_eq!(shrink(&[1, 2, 0], fails), [0]);
    }

    #[test]
    fn what_does_not_fail_stays_and_what_always_fails_is_nothing() {
        assert_eq!(shrink(&[1, 2, 3], |_| false), [1, 2, 3]);
        assert_eq!(shrink(&[1, 2, 3], |_| true), [0; 0]);
        assert_eq!(shrink(&[0u8; 0], |_| true), [0; 0]);
    }
}
