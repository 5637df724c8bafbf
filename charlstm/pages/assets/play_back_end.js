// What the back ends of the page to write with have in common. A back end is `backEnd` with
// - models(): a promise of the models, each {id, num_layers, hidden_size, alphabet,
//   num_parameters, bits_per_byte};
// - write(options, signal): yields what follows a prompt, some bytes at a time, as {bytes,
//   logprobs, cells} with an item for each byte. The options are model (one of these), prompt
//   (Uint8Array), numBytes, temperature, topP, seed, cells (their names), and echo: whether the
//   prompt's own bytes come first;
// - read(options, signal): yields the same for the bytes of a text alone.

/** An error whose message is for the reader. */
class Refused extends Error {}

/** The back end wants a key, or another one; then it has setKey(key). */
class KeyNeeded extends Refused {}
