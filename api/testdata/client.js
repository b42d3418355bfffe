// A program that manages a router by node-routeros: HOST PORT PASSWORD. It prints what it has seen.
'use strict'
const {RouterOSAPI} = require('node-routeros')

const [host, port, password] = process.argv.slice(2)
const list = '/ip/firewall/address-list/'

// The timeout, in seconds, is far longer than anything takes.
const router = password => new RouterOSAPI({host, port, user: 'admin', password, timeout: 180})

async function refused(doing) {
  try {
    await doing
  } catch (e) {
    return e
  }
  throw new Error('it is not refused')
}

async function main() {
  const problem = await refused(router('wrong').connect())
  if (problem.errno != 'CANTLOGIN') throw problem
  console.log('a wrong password is refused')
  const c = router(password)
  await c.connect()
  const show = async (...words) => console.log((await c.write(list + 'print', ['=.proplist=address', ...words])).map(row => row.address).join(' '))

  const [{ret: first}] = await c.write(list + 'add', ['=list=friends', '=address=10.1.0.1', '=comment=' + 'c'.repeat(200)])
  const [{ret: second}] = await c.write(list + 'add', ['=list=friends', '=address=10.1.0.2', '=disabled=yes'])
  console.log((await c.write(list + 'print', ['=count-only=']))[0].ret)
  await show('?list=friends', '?disabled=false')
  await show('?address=10.1.0.1', '?disabled=true', '?#|')
  await c.write(list + 'set', ['=.id=' + first, '=address=10.1.0.9'])
  await show('?.id=' + first)
  await c.write(list + 'remove', ['=.id=' + second])
  console.log((await refused(c.write(list + 'remove', ['=.id=' + second]))).message)
  console.log((await refused(c.write('/interface/wireless/print'))).message)
  console.log((await refused(c.write(list + 'add', ['=list=friends', '=address=10.1.0.300']))).message)

  // Two listens and commands on one connection, each with its tag.
  const rows = [], waiting = []
  const next = () => new Promise(resolve => rows.length ? resolve(rows.shift()) : waiting.push(resolve))
  const other = c.writeStream('/system/identity/listen')
  const told = c.writeStream(list + 'print', ['=follow=', '=.proplist=.id,address'])
  told.on('data', row => waiting.length ? waiting.shift()(row) : rows.push(row))
  const ended = new Promise(resolve => told.on('done', resolve))
  console.log((await next()).address)
  const [{ret: third}] = await c.write(list + 'add', ['=list=friends', '=address=10.1.0.3'])
  console.log((await next()).address)
  await c.write(list + 'remove', ['=.id=' + first + ',' + third])
  for (let i = 0; i < 2; i++) console.log('gone:', (await next())['.dead'])
  await told.stop()
  await ended
  console.log('the listen goes on:', rows.length > 0)
  await other.stop()

  const commands = 20, start = performance.now()
  for (let i = 0; i < commands; i++) await c.write('/system/identity/print')
  const alone = performance.now()
  await Promise.all(Array.from({length: 8}, () => c.write('/system/identity/print')))
  console.error(`node-routeros: ${Math.round(commands * 1000 / (alone - start))} commands a second`)
  await c.close()
}

main().then(() => process.exit(0), e => {
  console.error(e)
  process.exit(1)
})
