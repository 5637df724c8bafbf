// Writes through charlstm's server, which speaks OpenAI's completions and adds cells to them.

/** Returns the data of server-sent events as text, as they come. */
async function* serverSentEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let waiting = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (waiting + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/);
      waiting = events.pop();
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join('\n');
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have failed
  }
}

class Server {
  async models() {
    const answer = await this.ask('v1/models');
    const models = await answer.json().catch(() => null);
    if (!Array.isArray(models?.data) || models.data.some((model) => !model.charlstm)) {
      throw new Refused('This server does not describe its models as charlstm serve does.');
    }
    return models.data.map((model) => ({ id: model.id, ...model.charlstm }));
  }

  setKey(key) {
    this.key = key; // kept in memory only
  }

  async* write({ model, prompt, numBytes, temperature, topP, seed, cells, echo }, signal) {
    const answer = await this.ask('v1/completions', signal, {
      model: model.id,
      prompt: Array.from(prompt),
      max_tokens: numBytes,
      temperature,
      top_p: topP,
      seed,
      stream: true,
      logprobs: 1,
      echo,
      cells,
    });
    if (!answer.headers.get('Content-Type')?.startsWith('text/event-stream')) {
      throw new Refused('The server did not answer with a stream.');
    }
    try {
      for await (const event of serverSentEvents(answer.body)) {
        if (event === '[DONE]') return;
        const { error, choices } = JSON.parse(event);
        if (error) throw new Refused(error.message ?? 'The server gave up and did not say why.');
        const found = choices?.[0]?.logprobs;
        if (!found?.bytes?.length) continue;
        yield { bytes: found.bytes, logprobs: found.token_logprobs, cells: found.cells ?? [] };
      }
    } catch (error) {
      if (error instanceof Refused || signal.aborted) throw error;
      throw new Refused(`The connection to the server was lost (${error.message}).`);
    }
    throw new Refused('The server ended the text before it was finished.');
  }

  async* read({ model, prompt, cells }, signal) {
    const options = { model, prompt, cells, numBytes: 1, temperature: 0, topP: 1, echo: true };
    let left = prompt.length; // a server may insist on writing something: that is left out
    for await (const found of this.write(options, signal)) {
      const bytes = found.bytes.slice(0, left);
      left -= bytes.length;
      yield { ...found, bytes };
      if (!left) return;
    }
  }

  async ask(address, signal, body) {
    const headers = { Accept: 'application/json, text/event-stream' };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    if (body) headers['Content-Type'] = 'application/json';
    let answer;
    try {
      answer = await fetch(address, {
        method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), signal,
        cache: 'no-store', redirect: 'error',
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused(`The server cannot be reached (${error.message}): is it still running?`);
    }
    if (answer.ok) return answer;
    const said = (await answer.json().catch(() => null))?.error?.message;
    const message = said ?? `The server answered ${answer.status} ${answer.statusText}.`;
    throw answer.status === 401 ? new KeyNeeded(message) : new Refused(message);
  }
}

const backEnd = new Server();
