"""Speaks to three ports (SMTP, POP3, IMAP) with the clients of Python's library; any exception is a failure."""
import email.message
import imaplib
import poplib
import smtplib
import sys

SMTP, POP3, IMAP = map(int, sys.argv[1:])
imaplib.Debug = 0


def mail(subject, text):
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@my.org", "somebody@mail.my.org", subject
    message.set_content(text)
    return message


with smtplib.SMTP("127.0.0.1", SMTP, timeout=20) as smtp:
    smtp.ehlo()
    assert smtp.has_extn("size") and smtp.has_extn("pipelining") and smtp.has_extn("8bitmime")
    for number in range(3):
        assert smtp.send_message(mail(f"number {number}", f"line\n.\n..two dots\nend {number}\n")) == {}
    assert smtp.verify("somebody")[0] == 252
    try:
        smtp.sendmail("me@my.org", ["somebody@elsewhere.org"], b"x")
        raise AssertionError("relayed")
    except smtplib.SMTPRecipientsRefused as refused:
        assert refused.recipients["somebody@elsewhere.org"][0] == 550
    smtp.send_message(mail("to two", "x"), to_addrs=["somebody@my.org", "other@my.org"])

pop = poplib.POP3("127.0.0.1", POP3, timeout=20)
assert b"serv1" in pop.getwelcome()
assert "UIDL" in pop.capa()
pop.user("somebody@mail.my.org")
pop.pass_("anything")
count, size = pop.stat()
assert count == 4
assert sum(int(line.split()[1]) for line in pop.list()[1]) == size
_, lines, octets = pop.retr(2)
assert b"." in lines and b"..two dots" in lines and b"end 1" in lines, lines
assert sum(len(line) + 2 for line in lines) == int(pop.list(2).split()[2])
top = pop.top(2, 1)[1]
assert b"line" in top and b"end 1" not in top
ids = [line.split()[1] for line in pop.uidl()[1]]
assert len(set(ids)) == 4
pop.dele(1)
assert pop.stat()[0] == 3
pop.rset()
assert pop.stat()[0] == 4
pop.dele(1)
pop.quit()

with imaplib.IMAP4("127.0.0.1", IMAP, timeout=20) as imap:
    assert b"serv2" in imap.welcome and "IDLE" in imap.capabilities
    imap.login("somebody", 'quoted "password" \\')
    assert imap.select("INBOX", readonly=True) == ("OK", [b"3"])
    uid_validity = imap.response("UIDVALIDITY")[1]
    assert imap.list()[1] == [b'() "/" INBOX']
    kind, data = imap.search(None, "SUBJECT", '"number 2"')
    assert data == [b"2"], data
    kind, data = imap.fetch("2", "(UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE BODY.PEEK[])")
    head, text = data[0]
    assert b"UID 3" in head and b"end 2" in text and b'"number 2"' in head, data
    assert int(head.split(b"RFC822.SIZE ")[1].split()[0]) == len(text)
    assert imaplib.Internaldate2tuple(head) is not None
    kind, data = imap.store("1", "+FLAGS", "(\\Seen)")
    assert kind == "NO"

    assert imap.select("INBOX") == ("OK", [b"3"])
    assert imap.response("UIDVALIDITY")[1] == uid_validity
    assert imap.search(None, "UNSEEN") == ("OK", [b"1 2 3"])
    assert imap.fetch("1", "(RFC822)")[0] == "OK"
    assert imap.search(None, "UNSEEN") == ("OK", [b"2 3"])
    assert imap.uid("SEARCH", None, "TEXT", '"END 2"')[1] == [b"3"]
    imap.literal = b"number 1"
    assert imap.uid("SEARCH", "CHARSET", "UTF-8", "SUBJECT")[1] == [b"2"]
    assert imap.search(None, "HEADER", "Subject", '"two"', "NOT", "SEEN")[1] == [b"3"]
    header = imap.fetch("3", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1][0][1]
    assert header == b"Subject: to two\r\n\r\n", header
    assert imap.uid("STORE", "2", "+FLAGS.SILENT", "(\\Deleted)")[0] == "OK"
    assert imap.expunge() == ("OK", [b"1"])
    assert imap.status("INBOX", "(MESSAGES UIDNEXT)")[1] == [b"INBOX (MESSAGES 2 UIDNEXT 5)"]
    assert imap.check()[0] == "OK" and imap.noop()[0] == "OK"
    assert imap.close()[0] == "OK"
print("all served")
