"""Reads mailboxes by IMAP through the VIP: a line of JSON for each mail.

    collect.py HOST USER...
"""
import email.parser
import imaplib
import json
import re
import sys

# Who accepted a mail, and the name it had in the queue there.
RECEIVED = re.compile(r"\bby (\S+) \(Postfix\) with \S+ id (\w+)")

for user in sys.argv[2:]:
    with imaplib.IMAP4(sys.argv[1], 143, timeout=30) as session:
        session.login(user, "secret")
        count = int(session.select("INBOX", readonly=True)[1][0])
        if count == 0:
            continue
        parts = session.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT RECEIVED)])")[1]
        headers = [part[1] for part in parts if isinstance(part, tuple)]
        assert len(headers) == count, (user, len(headers), count)
        for header in headers:
            mail = email.parser.BytesHeaderParser().parsebytes(header)
            server, queue_id = RECEIVED.search(" ".join(mail["Received"].split())).groups()
            print(json.dumps({"user": user, "subject": mail["Subject"], "server": server, "queue_id": queue_id}))
