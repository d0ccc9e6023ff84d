//! Waiting for a condition with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use super::error::ClusterError;

/// Between two looks: short against every interval under test, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `look` gives a value, at most for `limit`. `Err` of `look` is what was seen instead.
///
/// # Errors
/// [`ClusterError::Late`] with what was seen last.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, ClusterError> {
    let by = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= by => {
                return Err(ClusterError::Late {
                    what: what.to_owned(),
                    limit,
                    last,
                });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Looks until it `holds`, at most for `limit`.
///
/// # Errors
/// [`ClusterError::Late`].
pub fn eventually(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> bool,
) -> Result<(), ClusterError> {
    wait_until(what, limit, || {
        holds()
            .then_some(())
            .ok_or_else(|| "it does not hold".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_look_is_told() {
        let mut looks = 0;
        let late = wait_until("three", Duration::from_millis(20), || {
            looks += 1;
            Err::<(), _>(format!("look {looks}"))
        })
        .unwrap_err();
        assert!(looks > 1);
        assert!(
            late.to_string().contains(&format!("look {looks}")),
            "{late}"
        );
        let mut looks = 0;
        let found = wait_until("three", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err(String::new())
            }
        });
        assert_eq!(found.unwrap(), 3);
    }
}
