"""The clients of Python's library through the VIP: smtplib, poplib and imaplib. Prints who served; an exception is a failure.

    clients.py HOST send SENDER RECIPIENT SUBJECT
    clients.py HOST pop3|imap USER SUBJECT     exit code 1: no such mail
"""
import email.message
import email.parser
import imaplib
import json
import poplib
import smtplib
import sys

PASSWORD = "secret"
TIMEOUT = 30


def send(host, sender, recipient, subject):
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, subject
    message.set_content("One line.\n.\nAnother one.\n")
    with smtplib.SMTP(host, 25, local_hostname="client.my.org", timeout=TIMEOUT) as smtp:
        server = smtp.ehlo()[1].split()[0].decode()
        assert smtp.send_message(message) == {}
    return server, True


def pop3(host, user, subject):
    pop = poplib.POP3(host, 110, timeout=TIMEOUT)
    server = pop.getwelcome().split()[1].decode()
    pop.user(user)
    pop.pass_(PASSWORD)
    found = False
    for number in range(1, pop.stat()[0] + 1):
        lines = pop.top(number, 0)[1]
        header = email.parser.BytesHeaderParser().parsebytes(b"\r\n".join(lines))
        if header["Subject"] == subject:
            assert b"Another one." in pop.retr(number)[1]
            found = True
    pop.quit()
    return server, found


def imap(host, user, subject):
    with imaplib.IMAP4(host, 143, timeout=TIMEOUT) as session:
        server = session.welcome.decode().split("] ")[-1].split()[0]
        session.login(user, PASSWORD)
        session.select("INBOX", readonly=True)
        numbers = session.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
        for number in numbers:
            assert b"Another one." in session.fetch(number, "(BODY.PEEK[TEXT])")[1][0][1]
    return server, bool(numbers)


ACTIONS = {"send": send, "pop3": pop3, "imap": imap}
served_by, done = ACTIONS[sys.argv[2]](sys.argv[1], *sys.argv[3:])
print(json.dumps({"server": served_by, "found": done}))
sys.exit(0 if done else 1)
