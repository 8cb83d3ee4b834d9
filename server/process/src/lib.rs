//! What every Switchboard process needs: configuration layers, telemetry, HTTP, shutdown.
