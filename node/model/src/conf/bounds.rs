//! The limits of a configuration, and what each directive is when the file does not say.

use std::time::Duration;

/// Each ATM is a voter, and a quorum of seven already survives the loss of three.
pub const ATMS_MAX: usize = 7;
/// Each virtual address costs a gratuitous ARP per interval, and all are announced within one takeover.
pub const VIRTUAL_ADDRESSES_MAX: usize = 256;
/// The active ATM answers for each source address as it does for each virtual address.
pub const SOURCE_ADDRESSES_MAX: usize = 256;
/// Identities of virtual services are 16 bits wide.
pub const VIRTUAL_SERVICES_MAX: usize = 65_535;

/// Default of `CheckServerFrequency` and `CheckPortFrequency`.
pub const CHECK_FREQUENCY_DEFAULT: Duration = Duration::from_secs(30);
/// Default of `CheckServerTimeout` and `CheckPortTimeout`.
pub const CHECK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Each check of each service is a process on each ATM: more than ten a second would be a load of their own.
pub const CHECK_FREQUENCY_MIN: Duration = Duration::from_millis(100);
/// No agent starts, connects and talks in less.
pub const CHECK_TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// A server checked once a day is not checked.
pub const CHECK_MAX: Duration = Duration::from_secs(24 * 3600);

/// Default of `rise=` and `fall=`, which the original did not have.
pub const RISE_FALL_DEFAULT: u32 = 1;
/// With the shortest frequency a hundred checks are ten seconds; whoever wants more checks less often.
pub const RISE_FALL_MAX: u32 = 100;

/// Default of `SendArpDelay`.
pub const SEND_ARP_DELAY_DEFAULT: Duration = Duration::from_secs(20);
/// Ten announcements a second per virtual address are a storm already.
pub const SEND_ARP_DELAY_MIN: Duration = Duration::from_millis(100);
/// Switches forget an address within the hour.
pub const SEND_ARP_DELAY_MAX: Duration = Duration::from_secs(3600);

/// Default of `HeartBeatDelay`.
pub const HEARTBEAT_DELAY_DEFAULT: Duration = Duration::from_secs(1);
/// Below this the jitter of a busy host, and of the disk under the log, looks like a death.
pub const HEARTBEAT_DELAY_MIN: Duration = Duration::from_millis(10);
/// Twice a minute without service is an outage that people repair by hand.
pub const HEARTBEAT_DELAY_MAX: Duration = Duration::from_secs(60);

/// Default of `MaxLostHeartbeats`.
pub const MAX_LOST_HEARTBEATS_DEFAULT: u32 = 3;
/// One lost packet must not depose an ATM.
pub const MAX_LOST_HEARTBEATS_MIN: u32 = 2;
/// More never reports a death.
pub const MAX_LOST_HEARTBEATS_MAX: u32 = 100;

/// Default of `NumConnections`, which bounds the connections, and also the clients of sticky services.
pub const NUM_CONNECTIONS_DEFAULT: u32 = 10_000;
/// A table of this size takes some hundred megabytes on every ATM.
pub const NUM_CONNECTIONS_MAX: u32 = 4_000_000;
/// Default of `NumServers`.
pub const NUM_SERVERS_DEFAULT: u32 = 1_000;
/// Identities of servers are 16 bits wide.
pub const NUM_SERVERS_MAX: u32 = 65_535;
/// Default of `NumServices`.
pub const NUM_SERVICES_DEFAULT: u32 = 100;
/// Each may stand behind each of 256 virtual addresses, and identities of virtual services are 16 bits wide.
pub const NUM_SERVICES_MAX: u32 = 65_535;

/// Default of `ConnectionTimeout`.
pub const CONNECTION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// A shorter one would take connections for idle between two of their packets.
pub const CONNECTION_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// A week: longer silence than any protocol keeps.
pub const CONNECTION_TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Default of `persist=`, on a sticky service.
pub const PERSIST_DEFAULT: Duration = Duration::from_secs(300);
/// Less is no persistence that a person would notice.
pub const PERSIST_MIN: Duration = Duration::from_secs(1);
/// A week.
pub const PERSIST_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
