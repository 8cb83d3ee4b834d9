//! The reference device client: connection, resend, acknowledgement, duplicates.
