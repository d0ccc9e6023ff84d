//! Where the mailboxes are: one directory that every mail server sees as /var/mail.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::lab::{Lab, LabError, MachineSpec, tool_path};

/// Owner of all mailboxes, as postfix and dovecot are told.
const VMAIL: u32 = 5000;

/// Where a mail server has the mailboxes.
pub(super) const MAILBOXES: &str = "/var/mail";

/// The host of the storage.
pub(super) const STORAGE_HOST: &str = "serv4";

/// How the servers share the mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A directory of this machine, bound into every server.
    Directory,
    /// An NFS export of serv4, which the servers mount.
    Nfs,
}

impl Storage {
    /// NFS where the kernel has server and client and the programs are there, else a directory.
    #[must_use]
    pub fn here() -> Self {
        let programs = ["rpc.nfsd", "rpc.mountd", "exportfs", "mount.nfs4"];
        let installed = programs.iter().all(|program| tool_path(program).is_some());
        if kernel_has_nfs() && installed {
            Self::Nfs
        } else {
            Self::Directory
        }
    }

    /// One line for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Directory if kernel_has_nfs() => {
                "shared storage: a directory of this machine; nfs-kernel-server is not installed"
            }
            Self::Directory => {
                "shared storage: a directory of this machine; this kernel has no NFS"
            }
            Self::Nfs => "shared storage: NFS, exported by serv4",
        }
    }

    /// Makes the directory, and exports it from serv4 where that is the way.
    ///
    /// # Errors
    /// Files cannot be made, or serv4 does not export.
    pub(super) fn prepare(self, lab: &Lab, network: &str) -> Result<(), LabError> {
        let dir = directory(lab);
        let cannot = || LabError::io(format!("make {}", dir.display()));
        // Mail of an earlier lab in this directory must not be taken for this one's.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(cannot())?;
        chown(&dir, Some(VMAIL), Some(VMAIL)).map_err(cannot())?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).map_err(cannot())?;
        if self == Self::Directory {
            return Ok(());
        }
        lab.start_machine(
            STORAGE_HOST,
            &MachineSpec {
                hostname: "serv4.my.org".to_owned(),
                // An overlay cannot be exported, the directory under it can; for want of a root above it, it is the root (fsid=0).
                binds: vec![(dir, PathBuf::from("/srv/mail"))],
                setup: format!(
                    "set -eu\n\
                     echo '/srv/mail {network}(rw,sync,no_subtree_check,no_root_squash,fsid=0)' > /etc/exports\n\
                     mount -t nfsd nfsd /proc/fs/nfsd\n\
                     echo 10 > /proc/fs/nfsd/nfsv4leasetime\n\
                     echo 10 > /proc/fs/nfsd/nfsv4gracetime\n\
                     exportfs -ra\n\
                     rpc.nfsd -N 3 -V 4.2 8\n\
                     rpc.mountd -N 3\n"
                ),
            },
        )
    }

    /// What a mail server is given: directories bound into it, and the command that mounts.
    pub(super) fn on_a_server(self, lab: &Lab) -> (Vec<(PathBuf, PathBuf)>, &'static str) {
        match self {
            Self::Directory => (
                vec![(directory(lab), Path::new(MAILBOXES).to_owned())],
                "true",
            ),
            // Soft, because the end of a lab ends serv4 with all others, and a hard mount would wait for it. A directory that another server
            // has delivered into is looked at again after acdirmin seconds; the default is 30.
            Self::Nfs => (
                Vec::new(),
                "mkdir -p /var/mail && mount -t nfs4 -o vers=4.2,soft,timeo=50,acdirmin=1,acdirmax=5 serv4.my.org:/ /var/mail",
            ),
        }
    }
}

/// Whether the kernel is NFS server and client.
fn kernel_has_nfs() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let mut words = ["nfs4", "nfsd"].into_iter();
    words.all(|name| known.split_ascii_whitespace().any(|word| word == name))
}

/// The mailboxes, as the real machine sees them.
fn directory(lab: &Lab) -> PathBuf {
    lab.dir().join("mailboxes")
}

/// Which version of NFS the mailboxes are mounted with, in the words of /proc/mounts: `vers=4.2`.
pub(super) fn nfs_version(mounts: &str) -> Option<&str> {
    let mut lines = mounts.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| {
        let there = words.nth(1)? == MAILBOXES && words.next()? == "nfs4";
        let mut options = words.next().filter(|_| there)?.split(',');
        options.find(|option| option.starts_with("vers="))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_mailboxes_and_of_nothing_else() {
        let mounts = "overlay / overlay rw 0 0\n\
                      serv4.my.org:/ /srv nfs4 rw,vers=4.1 0 0\n\
                      serv4.my.org:/ /var/mail nfs4 rw,relatime,vers=4.2,rsize=262144 0 0\n";
        assert_eq!(nfs_version(mounts), Some("vers=4.2"));
        assert_eq!(
            nfs_version("/dev/sda /var/mail ext4 rw,vers=4.2 0 0\n"),
            None
        );
        assert_eq!(nfs_version("/dev/sda"), None);
    }
}
