//! `docs/OPERATIONS.md` says of every counter what it means.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dataplane::{Count, ReceiveCounters};
    use dataplane_core::{Event, Verdict};

    const REFERENCE: &str = include_str!("../../docs/OPERATIONS.md");

    #[test]
    fn every_counter_is_documented() {
        let (_, section) = REFERENCE
            .split_once("\n## Counters\n")
            .expect("a section of counters");
        let section = section.split("\n## ").next().unwrap_or_default();
        let cells = section.lines().filter_map(|line| line.split('|').nth(1));
        let documented: BTreeSet<&str> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        // Rows of a kind: `malformed-*`.
        let kinds: Vec<&str> = documented
            .iter()
            .filter_map(|name| name.strip_suffix('*'))
            .collect();
        let verdicts = Verdict::ALL.map(|verdict| verdict.name().to_owned());
        let events = Event::ALL.map(|event| event.name().to_owned());
        let received = ReceiveCounters::default().named();
        let received = received.map(|(name, _)| format!("receive-{name}"));
        let sent = Count::ALL.map(|count| format!("send-{}", count.name()));
        let all = verdicts.iter().chain(&events).chain(&received).chain(&sent);
        let missing: Vec<&String> = all
            .filter(|name| !documented.contains(name.as_str()))
            // Of packets that were held only.
            .filter(|name| !documented.contains(format!("held-{name}").as_str()))
            .filter(|name| !kinds.iter().any(|kind| name.starts_with(kind)))
            .collect();
        assert!(missing.is_empty(), "not documented: {missing:?}");
    }
}
