//! The nftables table of a server: clamps the MSS that the server announces, and guards the kernel's tunnel.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{ServerRoleError, TUNNEL_DEVICE};

/// The table's family and name; nothing else of nftables is touched.
pub(super) const TABLE: &str = "inet atm_server";

/// What the table does.
#[derive(Clone, Debug)]
pub(super) struct Rules<'a> {
    /// The addresses of this server's answers.
    pub(super) vips: &'a [Ipv4Addr],
    /// The largest TCP segment that fits the tunnel, in bytes; `None` where there is no tunnel.
    pub(super) mss: Option<u32>,
    /// Set where the kernel unpacks the tunnel: then the table checks what our own decapsulation would check. The
    /// senders that are accepted; empty for any.
    pub(super) kernel_tunnel: Option<&'a [Ipv4Addr]>,
}

/// Puts the table in place, instead of the one that is there, in one transaction. `held` stays open until `nft` has
/// ended: with the journal's lock nobody takes back a change that an orphaned `nft` is still to make.
pub(super) async fn install(rules: &Rules<'_>, held: File) -> Result<(), ServerRoleError> {
    run(
        "set up its table",
        &["-f", "-"],
        &ruleset(rules),
        held.into(),
    )
    .await
    .map(drop)
}

/// Removes the table, which may be missing. `held` as in [`install`].
pub(super) async fn remove(held: File) -> Result<(), ServerRoleError> {
    let text = format!("table {TABLE}\ndelete table {TABLE}\n");
    run("remove its table", &["-f", "-"], &text, held.into())
        .await
        .map(drop)
}

/// Whether the table is there.
pub(super) async fn present() -> Result<bool, ServerRoleError> {
    let tables = run("list the tables", &["list", "tables"], "", Stdio::piped()).await?;
    Ok(tables
        .lines()
        .any(|line| line.strip_prefix("table ") == Some(TABLE)))
}

/// The text of the transaction. The first two lines make the table empty whether or not it is there.
fn ruleset(rules: &Rules<'_>) -> String {
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    text += &set("vips", rules.vips);
    if let Some(mss) = rules.mss {
        // Only the server's SYN-ACK tells the client how much to send, and it does not pass the ATM.
        text += &format!(
            "  chain output {{\n    type filter hook output priority mangle; policy accept;\n    ip saddr @vips tcp \
             flags & (syn|ack) == syn|ack tcp option maxseg size > {mss} tcp option maxseg size set {mss}\n  }}\n"
        );
    }
    if let Some(atms) = rules.kernel_tunnel {
        text += "  counter inner_destination { }\n  counter outer_source { }\n";
        text += &set("atms", atms);
        text += "  chain tunnel {\n    type filter hook prerouting priority raw; policy accept;\n";
        if !atms.is_empty() {
            text += "    ip protocol 4 ip saddr != @atms counter name outer_source drop\n";
        }
        text += &format!(
            "    iifname \"{TUNNEL_DEVICE}\" ip daddr != @vips counter name inner_destination drop\n  }}\n"
        );
    }
    text + "}\n"
}

fn set(name: &str, addresses: &[Ipv4Addr]) -> String {
    let mut text = format!("  set {name} {{\n    type ipv4_addr\n");
    if !addresses.is_empty() {
        let mut addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        addresses.sort();
        addresses.dedup();
        text += &format!("    elements = {{ {} }}\n", addresses.join(", "));
    }
    text + "  }\n"
}

/// Runs `nft` and returns what it printed, if `stdout` is a pipe. A transaction prints nothing there.
async fn run(
    action: &'static str,
    arguments: &[&str],
    input: &str,
    stdout: Stdio,
) -> Result<String, ServerRoleError> {
    let failed = |message: String| ServerRoleError::Nft { action, message };
    let mut command = Command::new("nft");
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ServerRoleError::NoNft);
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    // nft prints the offending line and markers below its message.
    let message = printed
        .lines()
        .find(|line| line.contains("rror"))
        .or(printed.lines().next())
        .unwrap_or("no message");
    Err(failed(message.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIPS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 101), Ipv4Addr::new(10, 1, 0, 100)];

    #[test]
    fn a_tunnel_server_clamps_what_it_announces() {
        let text = ruleset(&Rules {
            vips: &VIPS,
            mss: Some(1440),
            kernel_tunnel: None,
        });
        assert_eq!(
            text,
            "table inet atm_server\ndelete table inet atm_server\ntable inet atm_server {\n  set vips {\n    type \
             ipv4_addr\n    elements = { 10.1.0.100, 10.1.0.101 }\n  }\n  chain output {\n    type filter hook output \
             priority mangle; policy accept;\n    ip saddr @vips tcp flags & (syn|ack) == syn|ack tcp option maxseg \
             size > 1440 tcp option maxseg size set 1440\n  }\n}\n"
        );
    }

    #[test]
    fn the_kernels_tunnel_is_guarded_as_ours_is() {
        let atms = [Ipv4Addr::new(10, 1, 0, 1)];
        let text = ruleset(&Rules {
            vips: &VIPS,
            mss: Some(1440),
            kernel_tunnel: Some(&atms),
        });
        assert!(
            text.contains(
                "iifname \"atmtun0\" ip daddr != @vips counter name inner_destination drop"
            ),
            "{text}"
        );
        assert!(
            text.contains("ip protocol 4 ip saddr != @atms counter name outer_source drop"),
            "{text}"
        );
        let anyone = ruleset(&Rules {
            vips: &VIPS,
            mss: Some(1440),
            kernel_tunnel: Some(&[]),
        });
        assert!(!anyone.contains("!= @atms"), "{anyone}");
    }

    /// In a user namespace of its own, so that it needs no rights and changes nothing.
    #[test]
    fn nft_takes_every_ruleset() {
        let isolated = |arguments: &[&str], input: &str| {
            let mut command = std::process::Command::new("unshare");
            command
                .args(["-rn", "nft"])
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        };
        if !isolated(&["list", "tables"], "").status.success() {
            println!("skipped: no nft in a user namespace here");
            return;
        }
        for vips in [&VIPS[..], &[]] {
            for kernel_tunnel in [None, Some(&VIPS[..]), Some(&[])] {
                let text = ruleset(&Rules {
                    vips,
                    mss: Some(1440),
                    kernel_tunnel,
                });
                let output = isolated(&["-f", "-"], &text);
                assert!(
                    output.status.success(),
                    "{text}{}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }
}
