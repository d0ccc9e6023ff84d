//! Reads a command (RFC 3501 §9), whole, before anything is done.

use super::super::date::imap_day;
use super::super::flags::Flags;
use super::command::{Account, Action, Change, Command, Item, Key, Part, Section, StatusItem};
use super::cursor::{Cursor, Fault};

/// How deep searches may nest: each level is a call.
const DEPTH_MAX: u32 = 16;
/// Items in one FETCH and keys in one SEARCH.
const LIST_MAX: usize = 100;

/// Takes a command apart into its tag and what it asks for; or what is wrong with it, and its tag if it has one.
pub(super) fn parse(line: &[u8]) -> Result<(String, Command), (Option<String>, Fault)> {
    let mut cursor = Cursor::new(line);
    let tag = cursor.word(|byte| byte.is_ascii_graphic() && !b"(){%*\"\\+".contains(&byte));
    let tag = tag.map_err(|_| (None, "a tag is missing"))?.to_owned();
    match command(&mut cursor) {
        Ok(command) => Ok((tag, command)),
        Err(fault) => Err((Some(tag), fault)),
    }
}

fn command(cursor: &mut Cursor<'_>) -> Result<Command, Fault> {
    cursor.space()?;
    let mut name = cursor.keyword()?;
    let uid = name == "UID";
    if uid {
        cursor.space()?;
        name = cursor.keyword()?;
        if !matches!(
            name.as_str(),
            "FETCH" | "STORE" | "SEARCH" | "COPY" | "EXPUNGE"
        ) {
            return Err("UID goes with FETCH, STORE or SEARCH");
        }
    }
    let command = match name.as_str() {
        "CAPABILITY" => Command::Capability,
        "NOOP" => Command::Noop,
        "LOGOUT" => Command::Logout,
        "CHECK" => Command::Selected(Action::Check),
        "CLOSE" => Command::Selected(Action::Close { expunge: true }),
        "UNSELECT" => Command::Selected(Action::Close { expunge: false }),
        "EXPUNGE" if !uid => Command::Selected(Action::Expunge),
        "IDLE" => Command::Selected(Action::Idle),
        "LOGIN" => {
            cursor.space()?;
            let user = cursor.text()?;
            cursor.space()?;
            cursor.astring()?;
            Command::Login { user }
        }
        "SELECT" | "EXAMINE" => Command::Account(Account::Select {
            name: mailbox(cursor)?,
            read_only: name == "EXAMINE",
        }),
        "SUBSCRIBE" | "UNSUBSCRIBE" => Command::Account(Account::Subscribe {
            name: mailbox(cursor)?,
        }),
        "LIST" | "LSUB" => {
            let mut pattern = mailbox(cursor)?;
            cursor.space()?;
            pattern.extend(cursor.pattern()?);
            Command::Account(Account::List {
                answer: if name == "LIST" { "LIST" } else { "LSUB" },
                pattern,
            })
        }
        "STATUS" => Command::Account(Account::Status {
            name: mailbox(cursor)?,
            items: status(cursor)?,
        }),
        "FETCH" => fetch(cursor, uid)?,
        "STORE" => store(cursor, uid)?,
        "SEARCH" => search(cursor, uid)?,
        "APPEND" | "COPY" | "CREATE" | "DELETE" | "RENAME" | "AUTHENTICATE" | "STARTTLS"
        | "EXPUNGE" => Command::NotOffered,
        _ => return Err("command not known"),
    };
    // What is refused by name was not read to its end.
    if command != Command::NotOffered {
        cursor.end()?;
    }
    Ok(command)
}

fn mailbox(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, Fault> {
    cursor.space()?;
    cursor.astring()
}

/// `( a b c )`, at least one and at most [`LIST_MAX`].
fn list<T>(
    cursor: &mut Cursor<'_>,
    mut one: impl FnMut(&mut Cursor<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    cursor.expect(b'(', "a list is missing")?;
    let mut all = vec![one(cursor)?];
    while !cursor.takes(b')') {
        cursor.space()?;
        all.push(one(cursor)?);
        if all.len() > LIST_MAX {
            return Err("a list is too long");
        }
    }
    Ok(all)
}

fn status(cursor: &mut Cursor<'_>) -> Result<Vec<StatusItem>, Fault> {
    cursor.space()?;
    list(cursor, |cursor| match cursor.keyword()?.as_str() {
        "MESSAGES" => Ok(StatusItem::Messages),
        "RECENT" => Ok(StatusItem::Recent),
        "UIDNEXT" => Ok(StatusItem::UidNext),
        "UIDVALIDITY" => Ok(StatusItem::UidValidity),
        "UNSEEN" => Ok(StatusItem::Unseen),
        _ => Err("status item not known"),
    })
}

fn fetch(cursor: &mut Cursor<'_>, uid: bool) -> Result<Command, Fault> {
    cursor.space()?;
    let set = cursor.set()?;
    cursor.space()?;
    let mut items = if cursor.peek() == Some(b'(') {
        list(cursor, item)?
    } else {
        let mut ahead = cursor.clone();
        match ahead.keyword()?.as_str() {
            // Macros (RFC 3501 §6.4.5) stand alone. FULL needs the MIME structure, which is not offered.
            macro_name @ ("ALL" | "FAST") => {
                *cursor = ahead;
                let mut items = vec![Item::Flags, Item::InternalDate, Item::Size];
                if macro_name == "ALL" {
                    items.push(Item::Envelope);
                }
                items
            }
            _ => vec![item(cursor)?],
        }
    };
    // UID FETCH always tells the UID (RFC 3501 §6.4.8).
    if uid && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    Ok(Command::Selected(Action::Fetch { uid, set, items }))
}

fn item(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    let name = cursor.keyword()?;
    let old = |part, peek| {
        Item::Section(Section {
            label: name.clone(),
            part,
            peek,
            partial: None,
        })
    };
    Ok(match name.as_str() {
        "FLAGS" => Item::Flags,
        "UID" => Item::Uid,
        "INTERNALDATE" => Item::InternalDate,
        "RFC822.SIZE" => Item::Size,
        "ENVELOPE" => Item::Envelope,
        "RFC822" => old(Part::Whole, false),
        "RFC822.HEADER" => old(Part::Header, true),
        "RFC822.TEXT" => old(Part::Text, false),
        "BODY" | "BODY.PEEK" if cursor.peek() == Some(b'[') => {
            Item::Section(section(cursor, name == "BODY.PEEK")?)
        }
        "BODY" | "BODYSTRUCTURE" => return Err("the MIME structure is not offered"),
        _ => return Err("fetch item not known"),
    })
}

fn section(cursor: &mut Cursor<'_>, peek: bool) -> Result<Section, Fault> {
    cursor.expect(b'[', "a section is missing")?;
    let mut label = "BODY[".to_owned();
    let part = if cursor.peek() == Some(b']') {
        Part::Whole
    } else {
        let name = cursor.keyword()?;
        label.push_str(&name);
        match name.as_str() {
            "HEADER" => Part::Header,
            "TEXT" => Part::Text,
            "HEADER.FIELDS" | "HEADER.FIELDS.NOT" => {
                cursor.space()?;
                let names = list(cursor, |cursor| field_name(&cursor.text()?))?;
                label.push_str(&format!(" ({})", names.join(" ")));
                Part::Fields {
                    names,
                    except: name == "HEADER.FIELDS.NOT",
                }
            }
            _ => return Err("parts of a MIME structure are not offered"),
        }
    };
    cursor.expect(b']', "a section does not end")?;
    label.push(']');
    let mut partial = None;
    if cursor.takes(b'<') {
        let from = cursor.number()?;
        cursor.expect(b'.', "a partial fetch wants <first.count>")?;
        let count = cursor.number()?;
        cursor.expect(b'>', "a partial fetch does not end")?;
        label.push_str(&format!("<{from}>"));
        partial = Some((from, count));
    }
    Ok(Section {
        label,
        part,
        peek,
        partial,
    })
}

/// Names of header fields are repeated in the answer: visible characters only (RFC 5322 §3.6.8).
fn field_name(name: &str) -> Result<String, Fault> {
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b":()[]{}\"\\%*".contains(&byte));
    if fits {
        Ok(name.to_owned())
    } else {
        Err("not a name of a header field")
    }
}

fn store(cursor: &mut Cursor<'_>, uid: bool) -> Result<Command, Fault> {
    cursor.space()?;
    let set = cursor.set()?;
    cursor.space()?;
    let (change, silent) = match cursor.keyword()?.as_str() {
        "FLAGS" => (Change::Replace, false),
        "FLAGS.SILENT" => (Change::Replace, true),
        "+FLAGS" => (Change::Add, false),
        "+FLAGS.SILENT" => (Change::Add, true),
        "-FLAGS" => (Change::Remove, false),
        "-FLAGS.SILENT" => (Change::Remove, true),
        _ => return Err("STORE wants FLAGS, +FLAGS or -FLAGS"),
    };
    cursor.space()?;
    let mut flags = Flags::default();
    let grouped = cursor.takes(b'(');
    if !(grouped && cursor.takes(b')')) {
        loop {
            flags = flags.with(flag(cursor)?);
            if grouped && cursor.takes(b')') {
                break;
            }
            if !cursor.takes(b' ') {
                if grouped {
                    return Err("a list of flags does not end");
                }
                break;
            }
        }
    }
    Ok(Command::Selected(Action::Store {
        uid,
        set,
        change,
        silent,
        flags,
    }))
}

fn flag(cursor: &mut Cursor<'_>) -> Result<Flags, Fault> {
    if !cursor.takes(b'\\') {
        return Err("keywords are not offered, only the flags of the RFC");
    }
    Flags::named(&format!("\\{}", cursor.atom()?)).ok_or("this flag cannot be set")
}

fn search(cursor: &mut Cursor<'_>, uid: bool) -> Result<Command, Fault> {
    cursor.space()?;
    let mut ahead = cursor.clone();
    if ahead.keyword().is_ok_and(|word| word == "CHARSET") {
        *cursor = ahead;
        cursor.space()?;
        let charset = cursor.text()?;
        if !["US-ASCII", "UTF-8"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&charset))
        {
            return Ok(Command::NotOffered);
        }
        cursor.space()?;
    }
    Ok(Command::Selected(Action::Search {
        uid,
        key: keys(cursor, 0)?,
    }))
}

/// Keys up to the end of the command or a closing parenthesis: all of them must hold.
fn keys(cursor: &mut Cursor<'_>, depth: u32) -> Result<Key, Fault> {
    let mut all = vec![key(cursor, depth)?];
    while cursor.takes(b' ') {
        all.push(key(cursor, depth)?);
        if all.len() > LIST_MAX {
            return Err("a search has too many keys");
        }
    }
    Ok(Key::All(all))
}

fn key(cursor: &mut Cursor<'_>, depth: u32) -> Result<Key, Fault> {
    if depth > DEPTH_MAX {
        return Err("a search nests too deep");
    }
    if cursor.takes(b'(') {
        let inner = keys(cursor, depth + 1)?;
        cursor.expect(b')', "a parenthesis is not closed")?;
        return Ok(inner);
    }
    if matches!(cursor.peek(), Some(b'0'..=b'9' | b'*')) {
        return Ok(Key::Numbers(cursor.set()?));
    }
    let name = cursor.keyword()?;
    let not = |key| Key::Not(Box::new(key));
    Ok(match name.as_str() {
        "ALL" => Key::All(Vec::new()),
        "ANSWERED" => Key::Has(Flags::ANSWERED),
        "DELETED" => Key::Has(Flags::DELETED),
        "DRAFT" => Key::Has(Flags::DRAFT),
        "FLAGGED" => Key::Has(Flags::FLAGGED),
        "SEEN" => Key::Has(Flags::SEEN),
        "UNANSWERED" => not(Key::Has(Flags::ANSWERED)),
        "UNDELETED" => not(Key::Has(Flags::DELETED)),
        "UNDRAFT" => not(Key::Has(Flags::DRAFT)),
        "UNFLAGGED" => not(Key::Has(Flags::FLAGGED)),
        "UNSEEN" => not(Key::Has(Flags::SEEN)),
        "RECENT" => Key::Recent,
        "OLD" => not(Key::Recent),
        "NEW" => Key::All(vec![Key::Recent, not(Key::Has(Flags::SEEN))]),
        "SUBJECT" | "FROM" | "TO" | "CC" | "BCC" => Key::Header {
            name,
            text: argument(cursor)?,
        },
        "HEADER" => {
            cursor.space()?;
            let name = field_name(&cursor.text()?)?;
            Key::Header {
                name,
                text: argument(cursor)?,
            }
        }
        "BODY" => Key::Body(argument(cursor)?),
        "TEXT" => Key::Text(argument(cursor)?),
        "UID" => {
            cursor.space()?;
            Key::Uids(cursor.set()?)
        }
        "LARGER" | "SMALLER" => {
            cursor.space()?;
            let size = cursor.number()?;
            if name == "LARGER" {
                Key::Larger(size)
            } else {
                Key::Smaller(size)
            }
        }
        "BEFORE" => Key::Before(day(cursor)?),
        "ON" => Key::On(day(cursor)?),
        "SINCE" => Key::Since(day(cursor)?),
        "NOT" => {
            cursor.space()?;
            not(key(cursor, depth + 1)?)
        }
        "OR" => {
            cursor.space()?;
            let one = key(cursor, depth + 1)?;
            cursor.space()?;
            Key::Either(Box::new(one), Box::new(key(cursor, depth + 1)?))
        }
        _ => return Err("search key not known"),
    })
}

fn argument(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, Fault> {
    cursor.space()?;
    cursor.astring()
}

fn day(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    cursor.space()?;
    imap_day(&cursor.text()?).ok_or("not a date such as 1-Jan-2000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Command, Fault> {
        parse(line.as_bytes())
            .map(|(_, command)| command)
            .map_err(|(_, fault)| fault)
    }

    #[test]
    fn commands_as_clients_send_them() {
        assert_eq!(parse(b"a1 noop"), Ok(("a1".to_owned(), Command::Noop)));
        assert_eq!(
            of("a login \"somebody\" {3}\r\npw  x"),
            Err("too much at the end of the command")
        );
        assert_eq!(
            of("a login somebody {3}\r\npw)"),
            Ok(Command::Login {
                user: "somebody".to_owned()
            })
        );
        assert_eq!(
            of("a LIST \"\" *"),
            Ok(Command::Account(Account::List {
                answer: "LIST",
                pattern: b"*".to_vec()
            }))
        );
        let Ok(Command::Selected(Action::Fetch {
            uid: true, items, ..
        })) = of("a UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (Subject TO)]<0.9>)")
        else {
            panic!("not a FETCH");
        };
        assert_eq!(items[0], Item::Uid);
        let Item::Section(section) = &items[2] else {
            panic!("not a section")
        };
        assert_eq!(section.label, "BODY[HEADER.FIELDS (Subject TO)]<0>");
        assert!(section.peek);
        assert!(
            of("a FETCH 1 ALL").is_ok()
                && of("a FETCH 1 RFC822").is_ok()
                && of("a FETCH 1 BODY[]").is_ok()
        );
        assert!(of("a STORE 1 +FLAGS (\\Deleted \\Seen)").is_ok());
        assert!(of("a STORE 1 +FLAGS \\Deleted").is_ok());
        assert!(of("a STORE 1 FLAGS ()").is_ok());
        assert!(
            of("a SEARCH CHARSET UTF-8 OR (SEEN UID 4) NOT SUBJECT \"x y\" SINCE 1-Jan-2020")
                .is_ok()
        );
        assert_eq!(of("a SEARCH CHARSET KOI8-R ALL"), Ok(Command::NotOffered));
    }

    #[test]
    fn malformed_commands_are_refused() {
        for bad in [
            "",
            "a",
            "a ",
            "a  NOOP",
            "a NOOP x",
            "a UID NOOP",
            "a FETCH 1",
            "a FETCH 1 (",
            "a FETCH 1 ()",
            "a FETCH 0 FLAGS",
            "a FETCH 1 BODY[1]",
            "a FETCH 1 BODY[",
            "a FETCH 1 BODY[]<1>",
            "a FETCH 1 FULL",
            "a STORE 1 FLAGS (",
            "a STORE 1 FLAGS \\Recent",
            "a STORE 1 FLAGS word",
            "a SEARCH",
            "a SEARCH OR SEEN",
            "a SEARCH (",
            "a SEARCH SUBJECT",
            "a STATUS INBOX ()",
            "a LOGIN x",
            "a SELECT",
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        let deep = format!("a SEARCH {}ALL{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(of(&deep), Err("a search nests too deep"));
        let deep = format!("a SEARCH {}ALL", "NOT ".repeat(2000));
        assert_eq!(of(&deep), Err("a search nests too deep"));
    }
}
