mod mock_gateway;

fn main() {}
