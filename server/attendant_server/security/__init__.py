"""Who may call the server: certificates, API keys, tokens and permissions. Knows no transport."""
