"""IMAP sessions that wait in IDLE (RFC 2177) until standard input ends; then each says NOOP. Events are lines of JSON.

    idle.py HOST USER SESSIONS
"""
import imaplib
import json
import sys
import threading
import time

HOST, USER, SESSIONS = sys.argv[1], sys.argv[2], int(sys.argv[3])
printing = threading.Lock()


def say(**facts):
    with printing:
        print(json.dumps(facts | {"at": time.time()}), flush=True)


def wait(number, session):
    try:
        while True:
            line = session.readline()
            if not line:
                say(session=number, event="closed")
                return
            if line.startswith(b"idle1 OK"):
                session.send(b"noop1 NOOP\r\n")
            if line.startswith(b"noop1 OK"):
                say(session=number, event="answered")
                return
            words = line.split()
            if len(words) == 3 and words[2] == b"EXISTS":
                say(session=number, event="exists", count=int(words[1]))
    except (OSError, imaplib.IMAP4.error) as error:
        say(session=number, event="closed", why=str(error))


sessions, threads = [], []
# One after the other, so that they are shared out to the servers by turns.
for number in range(SESSIONS):
    session = imaplib.IMAP4(HOST, 143, timeout=30)
    server = session.welcome.decode().split("] ")[-1].split()[0]
    session.login(USER, "secret")
    session.select("INBOX", readonly=True)
    session.send(b"idle1 IDLE\r\n")
    assert session.readline().startswith(b"+"), "no IDLE"
    session.sock.settimeout(None)
    say(session=number, event="idle", server=server)
    sessions.append(session)
    threads.append(threading.Thread(target=wait, args=(number, session), daemon=True))
    threads[-1].start()
sys.stdin.read()
for session in sessions:
    try:
        session.send(b"DONE\r\n")
    except OSError:
        pass  # Its thread has said so.
for thread in threads:
    thread.join(10)
