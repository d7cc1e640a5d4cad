"""WeChat: its API as a client sees it: calls, errcodes, access tokens; it knows no claim."""
