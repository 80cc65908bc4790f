"""Publishing over HTTP: at the origin the uploads, what is known of them and their routes; and the client that sends."""
