//! The nftables table of a server, put in place and removed by the program `nft`. What is in it is decided by the model.

use std::fs::File;
use std::process::Stdio;

use model::server::nft::{Rules, TABLE, ruleset};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::ServerRoleError;

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
    use std::net::IpAddr;

    use model::server::Mss;
    use model::server::nft::{Devices, Guard};

    use super::*;

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
        let vips: Vec<IpAddr> = ["10.1.0.101", "10.1.0.100", "2001:db8::100"]
            .map(|vip| vip.parse().unwrap())
            .into();
        let both = Mss {
            v4: 1440,
            v6: Some(1420),
        };
        let guarded = |senders: &[IpAddr], devices| {
            ruleset(&Rules {
                vips: &vips,
                mss: both,
                kernel_tunnel: Some(Guard {
                    atms: senders,
                    devices,
                }),
            })
        };
        let mut texts: Vec<String> = [vips.clone(), vec![]]
            .iter()
            .map(|vips| {
                ruleset(&Rules {
                    vips,
                    mss: both,
                    kernel_tunnel: None,
                })
            })
            .collect();
        for (devices, atm) in [
            (Devices::Ipip, "10.1.0.1"),
            (Devices::IpipAndSit, "10.1.0.1"),
            (Devices::Ip6tnl, "2001:db8::1"),
        ] {
            let atm = [atm.parse().unwrap()];
            texts.extend([guarded(&atm, devices), guarded(&[], devices)]);
        }
        for text in texts {
            let output = isolated(&["-f", "-"], &text);
            assert!(
                output.status.success(),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
