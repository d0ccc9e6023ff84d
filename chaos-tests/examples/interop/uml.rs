//! A Linux kernel as a process of ours: user-mode-linux on this machine's own files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// The kernel of Debian's package user-mode-linux.
pub(crate) const KERNEL: &str = "linux.uml";
/// Where that package has its modules, a directory for each version.
const MODULES: &str = "/usr/lib/uml/modules";
/// The guest ends itself after so long: whatever becomes of us, it does not stay.
const GUEST_MAX: Duration = Duration::from_secs(180);
/// Longer than that, and it is ended from outside.
const HOST_MAX: Duration = Duration::from_secs(200);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(50);
/// Found nowhere else: a daemon of ours takes some 50 MiB.
const MEMORY: &str = "mem=768M";
/// Modules of both halves.
const LOADED: [&str; 9] = [
    "af_packet",
    "veth",
    "bridge",
    "ipip",
    "sit",
    "ip6_tunnel",
    "ip_vs",
    "ip_vs_rr",
    "nf_tables",
];

/// What is missing for it, by the name of its Debian package.
pub(crate) fn missing() -> Vec<&'static str> {
    let needed = [
        ("user-mode-linux", KERNEL),
        ("kmod", "modprobe"),
        ("ipvsadm", "ipvsadm"),
        ("iproute2", "ip"),
    ];
    let lacking = needed
        .into_iter()
        .filter(|(_, program)| find(program).is_none());
    lacking.map(|(package, _)| package).collect()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path);
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut candidates = own.chain(system).map(|dir| dir.join(program));
    candidates.find(|file| file.is_file())
}

/// Boots the kernel, runs `program guest --dir dir` in it as its root, and waits for its end. `dir` is absolute, without blanks.
///
/// # Errors
/// A sentence: it did not start, did not end in time, or its program failed.
pub(crate) fn run(dir: &Path, program: &Path) -> Result<(), String> {
    let problem = |what: &str, error: io::Error| format!("{what}: {error}");
    let text = |path: &Path| {
        let text = path
            .to_str()
            .filter(|text| !text.contains([' ', '\t', '\'', '\n']));
        let said = || {
            format!(
                "{}: the kernel's command line takes no path with blanks or quotes",
                path.display()
            )
        };
        text.map(str::to_owned).ok_or_else(said)
    };
    let (init, status) = (dir.join("init.sh"), dir.join("status"));
    let script = script(&text(dir)?, &text(program)?);
    prepare(dir, &init, &script).map_err(|error| problem("prepare the guest", error))?;
    let console =
        File::create(dir.join("console.log")).map_err(|e| problem("make console.log", e))?;
    let both = console
        .try_clone()
        .map_err(|e| problem("make console.log", e))?;
    let kernel = find(KERNEL).ok_or("no linux.uml")?;
    let guest = Command::new(kernel)
        .args([MEMORY, "rootfstype=hostfs", "rootflags=/", "rw", "quiet"])
        .args(["con=null", "con0=null,fd:1"])
        .arg(format!("init={}", init.display()))
        .arg(format!("uml_dir={}", dir.join("uml").display()))
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(both)
        // Its helpers are in a group with it, and end with it.
        .process_group(0)
        .spawn()
        .map_err(|error| problem("start linux.uml", error))?;
    wait(Guest(guest))?;
    let log = dir.join("guest.log");
    match fs::read_to_string(&status).as_deref().map(str::trim) {
        Ok("0") => Ok(()),
        Ok(code) => Err(format!(
            "the program in the guest ended with {code}; {} ends with:\n{}",
            log.display(),
            tail(&log)
        )),
        Err(_) => Err(format!(
            "the guest did not run its program; {} says:\n{}",
            dir.join("console.log").display(),
            tail(&dir.join("console.log"))
        )),
    }
}

/// A running kernel; its end is ours.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

fn wait(mut guest: Guest) -> Result<(), String> {
    let by = Instant::now() + HOST_MAX;
    loop {
        match guest.0.try_wait() {
            Ok(Some(_)) => return Ok(()),
            Ok(None) if Instant::now() < by => thread::sleep(PAUSE),
            Ok(None) => return Err(format!("the guest did not end within {HOST_MAX:?}")),
            Err(error) => return Err(format!("wait for the guest: {error}")),
        }
    }
}

fn prepare(dir: &Path, init: &Path, script: &str) -> io::Result<()> {
    let modules = dir.join("mods/lib/modules");
    fs::create_dir_all(&modules)?;
    fs::create_dir_all(dir.join("uml"))?;
    for version in fs::read_dir(MODULES)? {
        let version = version?;
        let link = modules.join(version.file_name());
        if !link.exists() {
            symlink(version.path(), link)?;
        }
    }
    let executable = |path: &Path, text: &str| {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    // What the kernel runs when it wants a module itself.
    let modprobe = format!(
        "#!/bin/sh\nexec {PATH} modprobe -d {}/mods \"$@\"\n",
        dir.display()
    );
    executable(&dir.join("modprobe.sh"), &modprobe)?;
    executable(init, script)
}

const PATH: &str = "env PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// The guest's first process. What it mounts is the guest's own, but all else that it writes is written to this machine's files.
fn script(dir: &str, program: &str) -> String {
    let modules = LOADED.join(" ");
    let seconds = GUEST_MAX.as_secs();
    format!(
        "#!/bin/sh\n\
         export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t tmpfs tmpfs /run\n\
         echo {dir}/modprobe.sh > /proc/sys/kernel/modprobe\n\
         for module in {modules}; do modprobe -d {dir}/mods $module; done\n\
         ip link set lo up\n\
         timeout -k 5 {seconds} {program} guest --dir {dir} > {dir}/guest.log 2>&1\n\
         echo $? > {dir}/status\n\
         sync\n\
         echo o > /proc/sysrq-trigger\n\
         sleep 5\n"
    )
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    const LINES: usize = 15;
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
