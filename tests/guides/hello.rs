use leveret::backend::Backend;
use leveret::{Activity, ActivityContext, Client, Result, Worker, Workflow, WorkflowContext};

const GREET: Activity<String, String> = Activity::new("greeter", "greet");
const HELLO: Workflow<String, String> = Workflow::new("greeter", "hello");
async fn greet(_: ActivityContext, name: String) -> Result<String> { Ok(format!("Hello, {name}!")) }
async fn hello(ctx: WorkflowContext, name: String) -> Result<String> { ctx.call(GREET, name).await }

#[tokio::main]
async fn main() -> Result<()> {
    let backend = Backend::from_env().await?; // RabbitMQ and Redis, or the file leveret.db if none are named
    let _worker = Worker::new("greeter", backend.clone()).workflow(HELLO, hello).activity(GREET, greet).start().await?;
    let greeting = Client::new(backend).start(HELLO, "Ada".into()).await?.result().await?;
    println!("{greeting}");
    Ok(())
}
