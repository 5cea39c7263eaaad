"""The page: a client of the server in a browser, with its files and its figures."""
