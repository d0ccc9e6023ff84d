//! The `NAT` block: of each line one for each IP version.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::super::code::Code;
use super::super::diagnostic::Finding;
use super::super::keywords::Directive;
use super::super::nat::{Nat, Network6};
use super::super::parse::{Block, Statement};
use super::super::values::{self, Complaint};
use super::Checker;

/// Which lines gave a directive in an IP version.
type Given = BTreeMap<(Directive, &'static str), Range<usize>>;

impl<'a> Checker<'a> {
    pub(super) fn nat(&mut self, block: &Block<'a>, first: &mut Option<Range<usize>>) {
        self.no_block_argument(block);
        let mut nat = Nat::default();
        // The line that gave a directive in each IP version; of several the first counts.
        let mut given = Given::new();
        for statement in &block.statements {
            if statement.directive == Directive::Subnet {
                self.subnet(statement, &mut given, &mut nat);
            } else {
                self.gateway(statement, &mut given, &mut nat);
            }
        }
        if let Some(first) = first {
            self.duplicate_block(block, first.clone());
            return;
        }
        *first = Some(block.span());
        self.places.nat = block.span();
        self.draft.nat = Some(nat);
    }

    fn gateway(&mut self, statement: &Statement<'a>, given: &mut Given, nat: &mut Nat) {
        let Some(word) = self.only_argument(statement) else {
            return;
        };
        match self.accept(word, values::source_address(word.text)) {
            Some(gateway) => {
                if self.is_first(statement, gateway, given) {
                    match gateway {
                        IpAddr::V4(v4) => nat.gateway = Some(v4),
                        IpAddr::V6(v6) => nat.gateway6 = Some(v6),
                    }
                }
            }
            // A gateway that is wrong is not a missing one: the unspecified addresses stand in for it.
            None => {
                nat.gateway.get_or_insert(Ipv4Addr::UNSPECIFIED);
                nat.gateway6.get_or_insert(Ipv6Addr::UNSPECIFIED);
            }
        }
    }

    /// Complains of a second line of its IP version.
    fn is_first(&mut self, line: &Statement<'a>, address: IpAddr, given: &mut Given) -> bool {
        let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let first = match given.entry((line.directive, version)) {
            Entry::Vacant(free) => {
                free.insert(line.span());
                return true;
            }
            Entry::Occupied(first) => first.get().clone(),
        };
        let message = format!("`{}` of {version} is given twice", line.directive.name());
        self.findings.push(
            Finding::error(Code::DuplicateDirective, line.span(), message)
                .label("again here")
                .related(first, "first given here")
                .help("remove one of the two lines; there may be one of IPv4 and one of IPv6"),
        );
        false
    }

    fn subnet(&mut self, statement: &Statement<'a>, given: &mut Given, nat: &mut Nat) {
        let first = statement.arguments.first().copied();
        let (network, mask) = match first.and_then(|word| word.split('/')) {
            Some((network, mask)) => {
                self.count(statement, 1, 1);
                (Some(network), Some(mask))
            }
            None => {
                self.count(statement, 2, 2);
                (first, statement.arguments.get(1).copied())
            }
        };
        let (Some(network), Some(mask)) = (network, mask) else {
            return;
        };
        let address = self.accept(
            network,
            network.text.parse::<IpAddr>().map_err(|_| {
                let message = format!("`{}` is not a network", network.text);
                Complaint::new(
                    Code::BadAddress,
                    message,
                    "an address as in `Subnet 10.1.0.0 255.255.255.0` or `Subnet 2001:db8::/64`",
                )
            }),
        );
        let (base, length) = match address {
            Some(IpAddr::V6(address)) => {
                let Some(length) = self.accept(mask, values::prefix6(mask.text)) else {
                    return;
                };
                let subnet = Network6::of(address, length);
                nat.subnet6.get_or_insert(subnet);
                (IpAddr::V6(subnet.address()), length)
            }
            // The mask of what is no network is held to the rules of IPv4.
            Some(IpAddr::V4(_)) | None => {
                let length = self.accept(mask, values::mask(mask.text));
                let (Some(IpAddr::V4(address)), Some(length)) = (address, length) else {
                    return;
                };
                let base = length.network(address);
                nat.subnet.get_or_insert((base, length));
                (IpAddr::V4(base), length.0)
            }
        };
        if !self.is_first(statement, base, given) {
            return;
        }
        if address != Some(base) {
            let message = format!(
                "`{}` is a host of the network `{base}`/{length}",
                network.text
            );
            self.findings.push(
                Finding::warning(Code::HostBits, network.span(), message)
                    .help(format!("`{base}` is taken for it")),
            );
        }
    }
}
