"""The bundled stores: json (the default), spool and memory."""
