//! A piece of the base, what it is replaced by, and what is then found where: words, options, references.

use model::conf::Code;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    // lines and blocks
    (
        "NetworkMask",
        "NetworkMsk",
        &[(Code::UnknownKeyword, "NetworkMsk")],
    ),
    (
        "  AddAtmPool ATMs\n",
        "  AddAtmPool ATMs\n  Check /x\n",
        &[(Code::MisplacedKeyword, "Check")],
    ),
    (
        "NAT\n",
        "AddAtm 10.1.0.3\nNAT\n",
        &[(Code::MisplacedKeyword, "AddAtm")],
    ),
    (
        "  Gateway",
        "  NetworkMask 24\n  Gateway",
        &[(Code::MisplacedKeyword, "NetworkMask")],
    ),
    ("EndNAT\n", "", &[(Code::UnclosedBlock, "NAT")]),
    (
        "EndVirtualHost\n",
        "",
        &[(Code::UnclosedBlock, "VirtualHost 10.1.0.100")],
    ),
    (
        "EndServers\n",
        "EndServices\n",
        &[(Code::WrongEnd, "EndServices")],
    ),
    (
        "EndServers\n",
        "EndServers\nEndServers\n",
        &[(Code::StrayEnd, "EndServers")],
    ),
    (
        "EndServers",
        "EndServers now",
        &[(Code::ExtraArgument, "now")],
    ),
    (
        "Servers\n",
        "Servers all of them\n",
        &[(Code::ExtraArgument, "all of them")],
    ),
    (
        "NetworkMask 255.255.255.0",
        "NetworkMask",
        &[(Code::MissingArgument, "NetworkMask")],
    ),
    (
        "tcp:25 mine",
        "tcp:25",
        &[
            (Code::AgentNotUsed, "mine"),
            (Code::MissingArgument, "Service smtp tcp:25"),
        ],
    ),
    (
        "UserCheck mine",
        "UserCheck",
        &[
            (Code::MissingArgument, "UserCheck"),
            (Code::UnknownAgent, "mine"),
        ],
    ),
    (
        "/usr/bin/mine",
        "/usr/bin/mine -v",
        &[(Code::ExtraArgument, "-v")],
    ),
    (
        "  Check /usr/bin/mine\n",
        "",
        &[(Code::MissingDirective, "UserCheck mine")],
    ),
    (
        "  AddAtmPool ATMs\n",
        "",
        &[(Code::MissingDirective, "VirtualHost 10.1.0.100")],
    ),
    (
        "  AddAtm 10.1.0.1\n  AddAtm 10.1.0.2 witness\n",
        "",
        &[(Code::MissingDirective, "AtmPool ATMs")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 10.1.0.254\n  gateway 10.1.0.253\n",
        &[(Code::DuplicateDirective, "gateway 10.1.0.253")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 2001:db8::1\n  Gateway 10.1.0.254\n  Gateway 2001:db8::2\n",
        &[(Code::DuplicateDirective, "Gateway 2001:db8::2")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 10.1.0.254\n  Subnet 2001:db8::/64\n  Subnet 2001:db9:: 64\n  Subnet 10.1.0.0/24\n",
        &[
            (Code::DuplicateDirective, "Subnet 2001:db9:: 64"),
            (Code::DuplicateDirective, "Subnet 10.1.0.0/24"),
        ],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 10.1.0.254\n  Gateway nowhere\n",
        &[(Code::BadAddress, "nowhere")],
    ),
    (
        "UserCheck",
        "nat\nEndNat\nUserCheck",
        &[(Code::DuplicateBlock, "nat")],
    ),
    (
        "VirtualHost",
        "AtmPool B\nAddAtm a\nEndAtmPool\nVirtualHost",
        &[(Code::DuplicateBlock, "AtmPool B")],
    ),
    // names
    (
        "Service imap",
        "Service smtp",
        &[
            (Code::DuplicateName, "smtp"),
            (Code::UnknownService, "imap"),
        ],
    ),
    (
        "Server serv2",
        "Server serv1",
        &[
            (Code::DuplicateName, "serv1"),
            (Code::UnknownServer, "serv2"),
        ],
    ),
    (
        "AddAtm 10.1.0.2",
        "AddAtm 10.1.0.1",
        &[(Code::DuplicateName, "10.1.0.1")],
    ),
    (
        "AtmPool ATMs\n",
        "ServerPool Mail\nEndServerPool\nAtmPool ATMs\n",
        &[(Code::DuplicateName, "Mail")],
    ),
    (
        "AddServerPool Mail",
        "AddServerPool Mail\nAddServerPool Mail",
        &[(Code::DuplicateName, "Mail")],
    ),
    (
        "imap tcp",
        "im/ap tcp",
        &[
            (Code::BadName, "im/ap"),
            (Code::ServiceNotOffered, "im/ap"),
            (Code::UnknownService, "imap"),
        ],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mien",
        &[(Code::AgentNotUsed, "mine"), (Code::UnknownAgent, "mien")],
    ),
    (
        "serv1 smtp/1",
        "serv1 smpt/1",
        &[(Code::UnknownService, "smpt")],
    ),
    (
        "AddServer serv1",
        "AddServer Serv1",
        &[
            (Code::ServerNotInPool, "serv1"),
            (Code::UnknownServer, "Serv1"),
        ],
    ),
    (
        "AddServerPool Mail",
        "AddServerPool Mial",
        &[(Code::PoolNotUsed, "Mail"), (Code::UnknownPool, "Mial")],
    ),
    (
        "AddAtmPool ATMs",
        "AddAtmPool Router",
        &[(Code::UnknownPool, "Router")],
    ),
    (
        "UserCheck mine",
        "UserCheck HTTP",
        &[(Code::BuiltInAgent, "HTTP"), (Code::UnknownAgent, "mine")],
    ),
    // values
    ("/usr/bin/mine", "bin/mine", &[(Code::BadPath, "bin/mine")]),
    ("tcp:25", "25", &[(Code::BadPort, "25")]),
    ("tcp:25", "sctp:25", &[(Code::BadPort, "sctp:25")]),
    ("tcp:25", "tcp:0", &[(Code::BadPort, "0")]),
    ("tcp:25", "tcp:65536", &[(Code::BadPort, "65536")]),
    ("tcp:25", "tcp:", &[(Code::BadPort, "tcp:")]),
    ("smtp/1", "smtp", &[(Code::BadWeight, "smtp")]),
    ("smtp/1", "smtp/65536", &[(Code::BadWeight, "65536")]),
    ("smtp/1", "smtp/", &[(Code::BadWeight, "smtp/")]),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nMaxLostHeartbeats 1\n",
        &[(Code::BadNumber, "1")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nMaxLostHeartbeats 101\n",
        &[(Code::BadNumber, "101")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumConnections 0\n",
        &[(Code::BadNumber, "0")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumConnections 4000001\n",
        &[(Code::BadNumber, "4000001")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumServers many\n",
        &[(Code::BadNumber, "many")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nHeartBeatDelay 9ms\n",
        &[(Code::BadDuration, "9ms")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nHeartBeatDelay 61\n",
        &[(Code::BadDuration, "61")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nSendArpDelay 0\n",
        &[(Code::BadDuration, "0")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nConnectionTimeout 1y\n",
        &[(Code::BadDuration, "1y")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway 10.1.0.256",
        &[(Code::BadAddress, "10.1.0.256")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway ::1",
        &[(Code::BadAddress, "::1")],
    ),
    (
        "Server serv1 10.1.0.11",
        "Server serv1 224.0.0.1",
        &[(Code::BadAddress, "224.0.0.1")],
    ),
    (
        "VirtualHost 10.1.0.100",
        "VirtualHost 127.0.0.1",
        &[(Code::BadAddress, "127.0.0.1")],
    ),
    (
        "AddAtmPool",
        "Address mail.my.org\nAddAtmPool",
        &[(Code::BadAddress, "mail.my.org")],
    ),
    (
        "Server serv1 10.1.0.11",
        "Server serv1 -x",
        &[(Code::BadHost, "-x")],
    ),
    (
        "NetworkMask 255.255.255.0",
        "NetworkMask 255.0.255.0",
        &[(Code::BadMask, "255.0.255.0")],
    ),
    (
        "NetworkMask 255.255.255.0",
        "NetworkMask /33",
        &[(Code::BadMask, "/33")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 10.1.0.0/33",
        &[(Code::BadMask, "33")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 10.1.0.7/24",
        &[(Code::HostBits, "10.1.0.7")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 2001:db8::/129",
        &[(Code::BadMask, "129")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 2001:db8:: 255.255.255.0",
        &[(Code::BadMask, "255.255.255.0")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 2001:db8::7/64",
        &[(Code::HostBits, "2001:db8::7")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet here/24",
        &[(Code::BadAddress, "here")],
    ),
    (
        "10.1.0.11 tunnel",
        "10.1.0.11 tunel",
        &[(Code::UnknownMethod, "tunel")],
    ),
    // options
    (
        "tcp:25 mine",
        "tcp:25 mine stiky",
        &[(Code::UnknownOption, "stiky")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky=yes",
        &[(Code::UnknownOption, "sticky=yes")],
    ),
    (
        "noping",
        "noping sticky",
        &[(Code::UnknownOption, "sticky")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky STICKY",
        &[(Code::DuplicateOption, "STICKY")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine scheduler=rr",
        &[(Code::BadOptionValue, "rr")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky mask=129",
        &[(Code::BadOptionValue, "129")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky persist=0",
        &[(Code::BadDuration, "0")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine persist=9",
        &[(Code::OptionWithoutEffect, "9")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine fallback=serv9",
        &[(Code::UnknownServer, "serv9")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:143 imapAgent fallback=serv2",
        &[(Code::OptionWithoutEffect, "serv2")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:143 imapAgent fallback=serv1 on-down=reset tls=starttls",
        &[],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine on-down=kill",
        &[(Code::BadOptionValue, "kill")],
    ),
    (
        "tcp:25 mine",
        "udp:25 mine on-down=reset",
        &[(Code::OptionWithoutEffect, "reset")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:143 connect tls=implicit",
        &[(Code::OptionWithoutEffect, "implicit")],
    ),
    // agents of ours, and what they cannot
    (
        "tcp:143 imapAgent",
        "udp:143 imapAgent",
        &[(Code::TcpOnlyAgent, "imapAgent")],
    ),
    (
        "tcp:143 imapAgent",
        "udp:53 Connect",
        &[(Code::TcpOnlyAgent, "Connect")],
    ),
    (
        "tcp:143 imapAgent",
        "udp:80 http tls=implicit",
        &[(Code::TcpOnlyAgent, "http")],
    ),
    ("tcp:143 imapAgent", "udp:53 dnsAgent", &[]),
    ("tcp:143 imapAgent", "udp:853 dnsAgent", &[]),
    ("tcp:143 imapAgent", "udp:853 dnsAgent tls=none", &[]),
    (
        "tcp:143 imapAgent",
        "udp:853 dnsAgent tls=implicit",
        &[(Code::TlsNotSpoken, "implicit")],
    ),
    (
        "tcp:143 imapAgent",
        "udp:53 dnsAgent tls=starttls",
        &[(Code::TlsNotSpoken, "starttls")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:53 dnsAgent tls=starttls",
        &[(Code::TlsNotSpoken, "starttls")],
    ),
    ("tcp:143 imapAgent", "tcp:53 dnsAgent tls=implicit", &[]),
    (
        "tcp:143 imapAgent",
        "tcp:80 http tls=starttls",
        &[(Code::TlsNotSpoken, "starttls")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:80 httpAgent tls=STARTTLS",
        &[(Code::TlsNotSpoken, "STARTTLS")],
    ),
    // A program of their own may know what ours does not.
    ("tcp:25 mine", "udp:25 mine tls=starttls", &[]),
    (
        "EndUserCheck\n",
        "EndUserCheck\nUserCheck imapAgent\n  Check /opt/imapAgent\nEndUserCheck\n",
        &[],
    ),
    ("ServerPool Mail", "ServerPool Mail rise=2 FALL=3", &[]),
    (
        "ServerPool Mail",
        "ServerPool Mail rise=0 fall=101",
        &[(Code::BadNumber, "0"), (Code::BadNumber, "101")],
    ),
    (
        "ServerPool Mail",
        "ServerPool Mail sink=1",
        &[(Code::UnknownOption, "sink=1")],
    ),
    ("nat noping", "nat SOURCE=10.1.0.50 noping", &[]),
    (
        "nat noping",
        "nat source=10.1.0.50 source=10.1.0.51",
        &[(Code::DuplicateOption, "source=10.1.0.51")],
    ),
    (
        "nat noping",
        "nat source",
        &[(Code::UnknownOption, "source")],
    ),
    (
        "nat noping",
        "nat source=atm1",
        &[(Code::BadAddress, "atm1")],
    ),
    (
        "nat noping",
        "nat source=127.0.0.1",
        &[(Code::BadAddress, "127.0.0.1")],
    ),
    (
        "nat noping",
        "nat source=224.0.0.1",
        &[(Code::BadAddress, "224.0.0.1")],
    ),
    (
        "nat noping",
        "tunnel source=10.1.0.50",
        &[(Code::SourceWithoutNat, "10.1.0.50")],
    ),
    // sense
    (
        "  Gateway 10.1.0.254\n",
        "",
        &[(Code::NatWithoutGateway, "nat")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 2001:db8::1\n",
        &[(Code::NatWithoutGateway, "10.1.0.12")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway 10.1.0.2",
        &[(Code::AddressConflict, "NAT")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway 10.1.0.11",
        &[(Code::AddressConflict, "NAT")],
    ),
    (
        "  AddServer serv1",
        "  CheckServerTimeout 31\n  AddServer serv1",
        &[(Code::TimeoutExceedsFrequency, "CheckServerTimeout 31")],
    ),
    (
        "  AddServer serv1",
        "  CheckPortFrequency 9\n  AddServer serv1",
        &[(Code::TimeoutExceedsFrequency, "CheckPortFrequency 9")],
    ),
    (
        "EndServices",
        "  Service telnet tcp:23 none\nEndServices",
        &[(Code::ServiceNotOffered, "telnet")],
    ),
    (
        "EndServers\n",
        "  Server serv3 10.1.0.13 direct\nEndServers\n",
        &[(Code::ServerNotInPool, "serv3")],
    ),
    (
        "AtmPool ATMs\n",
        "ServerPool B\nEndServerPool\nAtmPool ATMs\n",
        &[(Code::EmptyPool, "B"), (Code::PoolNotUsed, "B")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 smtpAgent",
        &[(Code::AgentNotUsed, "mine")],
    ),
    // what is not a problem
    (
        "NetworkMask 255.255.255.0\n",
        "networkmask /24 # a comment\r\n",
        &[],
    ),
    (
        "NetworkMask 255.255.255.0\n",
        "\u{feff}NETWORKMASK 24\n\n",
        &[],
    ),
    ("Subnet 10.1.0.0 255.255.255.0", "Subnet 10.1.0.0/24", &[]),
    (
        "tcp:25 mine",
        "TCP:25 mine Sticky Scheduler=WLC replication=async persist=5m mask=24",
        &[],
    ),
    (
        "  AddServer serv2 smtp/2 imap/1\n",
        "AddServer serv2 smtp/2\nAddServer serv2 imap/0\n",
        &[],
    ),
    ("tcp:143 imapAgent", "udp:25 none", &[]),
    ("EndServers\n", "EndServers\nServers\nEndServers\n", &[]),
];
