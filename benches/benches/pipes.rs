//! FIFO gateways beside `cat`: `cargo bench -p bus-benches --bench pipes -- --help` lists the options.

fn main() -> anyhow::Result<()> {
    bus_benches::run_pipes()
}
