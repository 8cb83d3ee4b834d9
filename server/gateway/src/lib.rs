//! The gateway process: devices' connections, delivery, acknowledgement.
