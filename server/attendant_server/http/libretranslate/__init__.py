"""The protocol of LibreTranslate: translation, languages and their detection."""
