"""The words of the wire: those of draft-ietf-httpbis-resumable-upload where it has any (FORMAT.md section 11.1)."""

PIECE_TYPE = "application/partial-upload"
IDS_TYPE = "application/octet-stream"
OFFSET_HEADER = "Upload-Offset"
COMPLETE_HEADER = "Upload-Complete"
LENGTH_HEADER = "Upload-Length"
LIMIT_HEADER = "Upload-Limit"
