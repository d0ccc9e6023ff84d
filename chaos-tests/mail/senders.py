"""Many clients that send mail through the VIP until standard input ends, each a number of mails at least.

    senders.py HOST CLIENTS MAILS PAUSE_MS TIMEOUT_S

Client N sends to uN@mail.my.org. A mail is sent again until a server says 250 after its DATA. Each accepted mail is a line of
JSON: its subject, who accepted it, how often its fate was unknown (everything was sent and no answer came), how often it
was refused or not begun, when it was accepted.
"""
import json
import smtplib
import socket
import sys
import threading
import time

HOST, CLIENTS, MAILS, PAUSE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) / 1000
TIMEOUT = int(sys.argv[5])
# More than a run is long; a client that nobody stops ends by itself.
MAILS_MAX = 500
GIVE_UP = 12 * TIMEOUT

stop = threading.Event()
printing = threading.Lock()


class Unknown(Exception):
    """Everything was sent, and no answer came."""


def attempt(recipient, subject):
    """Returns the server that said 250."""
    smtp = smtplib.SMTP(timeout=TIMEOUT, local_hostname="client.my.org")
    try:
        code, greeting = smtp.connect(HOST, 25)
        if code != 220:
            raise smtplib.SMTPConnectError(code, greeting)
        server = greeting.split()[0].decode()
        smtp.ehlo_or_helo_if_needed()
        for code, said in (smtp.mail("me@my.org"), smtp.rcpt(recipient)):
            if code != 250:
                raise smtplib.SMTPResponseException(code, said)
        text = f"From: me@my.org\r\nTo: {recipient}\r\nSubject: {subject}\r\n\r\nThe text of {subject}.\r\n"
        smtp.putcmd("data")
        code, said = smtp.getreply()
        if code != 354:
            raise smtplib.SMTPResponseException(code, said)
        try:
            smtp.send(text + ".\r\n")
            code, said = smtp.getreply()
        except (OSError, smtplib.SMTPServerDisconnected) as error:
            raise Unknown from error
        if code != 250:
            raise smtplib.SMTPResponseException(code, said)
        return server
    finally:
        # The answer has been seen, or there will be none: the manners of QUIT must not make it a failure.
        smtp.close()


def say(**facts):
    with printing:
        print(json.dumps(facts), flush=True)


def client(number):
    sent = 0
    while sent < MAILS_MAX and (sent < MAILS or not stop.is_set()):
        subject, recipient = f"mail-{number}-{sent}", f"u{number}@mail.my.org"
        unknown = failed = 0
        by = time.monotonic() + GIVE_UP
        while True:
            try:
                server = attempt(recipient, subject)
                say(subject=subject, server=server, unknown=unknown, failed=failed, at=time.time())
                break
            except Unknown:
                unknown += 1
            except (OSError, smtplib.SMTPException):
                failed += 1
                time.sleep(0.1)
            if time.monotonic() > by:
                say(subject=subject, server=None, unknown=unknown, failed=failed, at=time.time())
                return
        sent += 1
        time.sleep(PAUSE)


threads = [threading.Thread(target=client, args=(number,)) for number in range(1, CLIENTS + 1)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
